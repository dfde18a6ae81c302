# Log events only, with a look at the types and the usage.
import litellm
from litellm.integrations.custom_logger import CustomLogger

events: list = []


class Audit(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        typed = isinstance(response_obj, litellm.ModelResponse)
        usage = getattr(response_obj, "usage", None)
        total = usage.total_tokens if usage else None
        events.append(["success", kwargs["model"], typed, total, start_time <= end_time])

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        events.append(["failure", kwargs["model"], str(kwargs["exception"]), response_obj])


handler = Audit()
