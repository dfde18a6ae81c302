"""A Django project whose users sign in to its admin, and whose hooks know who of them calls.

    python -m examples.django_users migrate
    python -m examples.django_users createsuperuser
    uvicorn examples.django_users:application

Sign in at http://127.0.0.1:8000/admin/, then call /v1/chat/completions with the browser's cookies and its CSRF token.
"""

import json
import os
import sys
from io import BytesIO

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import aget_user
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from starlette.exceptions import HTTPException

from asgi_llm_gate import CallHooks, LLMGate
from examples.parrot import answer

SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
CONTEXT = ("django.contrib.auth.context_processors.auth", "django.contrib.messages.context_processors.messages")

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "an example's"),
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("USERS_DB", "users.sqlite3")}
    },
    INSTALLED_APPS=[
        f"django.contrib.{app}" for app in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
    ],
    MIDDLEWARE=[SESSION, "django.middleware.csrf.CsrfViewMiddleware", AUTHENTICATION, MESSAGES],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request", *CONTEXT]},
        }
    ],
    STATIC_URL="static/",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)


class SessionUser:
    """Find the user of Django's session before the gate asks who calls; Django itself does so behind it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            request = ASGIRequest(scope, BytesIO())
            request.session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
            scope = {**scope, "user": await aget_user(request)}
        await self.app(scope, receive, send)


class Handler(CallHooks):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if user_api_key_dict.user_id is None:
            raise HTTPException(401, "Sign in first")
        data["user"] = f"user-{user_api_key_dict.user_id}"


async def chat(request: HttpRequest) -> JsonResponse:
    data = json.loads(request.body)
    return JsonResponse(answer(data), headers={"x-user": data["user"]})


application = SessionUser(LLMGate(ASGIStaticFilesHandler(get_asgi_application()), callbacks=[Handler()]))
urlpatterns = [path("v1/chat/completions", chat), path("admin/", admin.site.urls)]


if __name__ == "__main__":
    execute_from_command_line(sys.argv)
