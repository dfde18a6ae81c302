# A class, no instance, with no base class of LiteLLM's; its hooks are plain functions, one of them inherited.
from the_words import WORDS


class Base:
    def async_pre_call_hook(self, data: dict, call_type: str):
        if data["messages"][0]["content"] in WORDS:
            return WORDS[data["messages"][0]["content"]]


class Greeter(Base):
    def async_moderation_hook(self, data):
        if "token" not in data["secret_fields"]["raw_headers"].get("authorization", "token"):
            raise PermissionError
        if "nobody" in data["messages"][0]["content"]:
            return "There is nobody here"
