"""A whole Django project behind the gate: its admin and static files stay its own, and hooks know its users."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest

from tests.commandline import ROOT, environment, serving

SET_UP = """
from django.core.management import call_command
import examples.django_users
call_command("migrate", verbosity=0)
call_command("createsuperuser", interactive=False, username="ada", email="ada@example.com", verbosity=0)
"""

CALL = {"model": "parrot", "messages": [{"role": "user", "content": "good morning"}], "user": "somebody else"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The example of the project, with one user in its database."""
    env = {"USERS_DB": str(tmp_path_factory.mktemp("django") / "users.sqlite3")}
    password = {"DJANGO_SUPERUSER_PASSWORD": "lovelace"}
    subprocess.run([sys.executable, "-c", SET_UP], check=True, cwd=ROOT, env=environment(env | password), timeout=60)
    argv = [sys.executable, "-m", "uvicorn", "--port", "0", "examples.django_users:application"]
    with serving(argv, url_in="stderr", env=env) as server:
        yield server.url


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        yield client


def csrf(client):
    return {"x-csrftoken": client.cookies["csrftoken"]}


@pytest.fixture
def ada(client):
    """A client that has signed in, through the admin's own form."""
    form = client.get("/admin/login/")
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.text)
    assert token
    fields = {"username": "ada", "password": "lovelace", "csrfmiddlewaretoken": token[1], "next": "/admin/"}
    signed_in = client.post("/admin/login/", data=fields)
    assert (signed_in.status_code, signed_in.headers["location"]) == (302, "/admin/")
    return client


def test_hooks_know_the_sessions_user(ada):
    """The user that hooks are given is the one of the session, not the one that the body claims."""
    response = ada.post("/v1/chat/completions", json=CALL, headers=csrf(ada))
    assert (response.status_code, response.headers["x-user"]) == (200, "user-1")
    assert response.json()["choices"][0]["message"]["content"] == "You said: good morning"


@pytest.mark.parametrize("cookie", [None, "sessionid=", "sessionid=0123456789abcdef0123456789abcdef", "sessionid=%00"])
def test_who_has_not_signed_in_is_nobody(client, cookie):
    """No session, an unknown one or a forged one: the hook is given no user."""
    response = client.post("/v1/chat/completions", json=CALL, headers={"cookie": cookie} if cookie else {})
    assert (response.status_code, response.json()["error"]["message"]) == (401, "Sign in first")


def test_djangos_own_checks_stay(ada):
    """A call that another site has a browser send, without the token, is refused by Django behind the gate."""
    response = ada.post("/v1/chat/completions", json=CALL)
    assert (response.status_code, "CSRF" in response.text) == (403, True)


def test_admin_and_static_files_are_untouched(ada):
    """Pages, redirects, cookies and files of the project pass by the gate."""
    assert "Site administration" in ada.get("/admin/").text
    style = ada.get("/static/admin/css/base.css")
    assert (style.status_code, style.headers["content-type"]) == (200, "text/css")
    assert len(style.content) == int(style.headers["content-length"])
    assert ada.get("/static/nowhere.css").status_code == 404
    assert ada.post("/admin/logout/", headers=csrf(ada)).status_code == 200
    assert ada.get("/admin/").status_code == 302
