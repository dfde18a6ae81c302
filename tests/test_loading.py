from __future__ import annotations

import importlib
import os
import py_compile
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType

import pytest

from asgi_llm_gate.callhooks import CallHooks
from asgi_llm_gate.loading import LoadError, as_callback, load


@pytest.fixture(autouse=True)
def modules():
    """Leave `sys.modules` as it was, and see that loading did so with `sys.path` and `sys.meta_path`."""
    before, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    yield
    assert sys.path == path
    assert sys.meta_path == finders
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def write(folder: Path, **files: str) -> Path:
    """Write Python files; ``__`` in a name stands for a slash."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def package(folder: Path, name: str, text: str = "") -> Path:
    path = folder.joinpath(*name.split("."), "__init__.py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


def test_a_handler_is_found_beside_the_configuration(tmp_path):
    write(tmp_path, one_handler="handler = ['it']")
    assert load("one_handler.handler", tmp_path) == ["it"]


def test_a_handler_is_found_in_folders_below(tmp_path):
    write(tmp_path, below__deeper__hooks="handler = __name__")
    package(tmp_path, "whole", "handler = __name__")
    assert load("below.deeper.hooks.handler", tmp_path) == "below.deeper.hooks"
    assert load("whole.handler", tmp_path) == "whole"


def test_a_relative_folder_is_the_working_directorys(tmp_path, monkeypatch):
    """The module keeps its absolute file when the working directory changes."""
    write(tmp_path, relative_handler="handler = 1")
    monkeypatch.chdir(tmp_path)
    assert load("relative_handler.handler", Path()) == 1
    assert sys.modules["relative_handler"].__file__ == str(tmp_path / "relative_handler.py")


def test_an_installed_module_is_found_where_there_is_no_such_file(tmp_path):
    assert load("collections.OrderedDict", tmp_path) is importlib.import_module("collections").OrderedDict
    assert load("collections.abc.Mapping", None) is importlib.import_module("collections.abc").Mapping


def test_a_file_runs_once_however_many_names_come_from_it(tmp_path):
    write(tmp_path, run_once="import ran\nran.times.append(1)\na, b = object(), object()", ran="times = []")
    a, b = load("run_once.a", tmp_path), load("run_once.b", tmp_path)
    assert load("run_once.a", tmp_path) is a is not b
    assert load("ran.times", tmp_path) == [1]


def test_a_file_runs_once_under_whatever_name_it_was_loaded_first(tmp_path):
    """From another folder's point of view the same file has another dotted name."""
    write(tmp_path, folder__hooks_file="handler = object()")
    assert load("folder.hooks_file.handler", tmp_path) is load("hooks_file.handler", tmp_path / "folder")


def test_a_module_that_the_app_imported_is_not_run_again(tmp_path, monkeypatch):
    write(tmp_path, of_the_app="handler = object()")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("of_the_app")
    assert load("of_the_app.handler", tmp_path) is module.handler


def test_a_file_beside_two_configurations_is_two_modules(tmp_path):
    """Another folder's file of the same name neither takes the place of the first nor is mistaken for it."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write(folder, same_name=f"handler = ({folder.name!r}, __file__)")
    assert load("same_name.handler", first) == ("first", str(first / "same_name.py"))
    assert load("same_name.handler", second) == ("second", str(second / "same_name.py"))
    assert sys.modules["same_name"].handler[0] == "first"
    assert load("same_name.handler", second) is load("same_name.handler", second)


def test_a_file_named_like_a_library_does_not_stand_in_for_it(tmp_path):
    """Whether the library has been imported yet or not."""
    write(tmp_path, json="handler = 'mine'", tabnanny="handler = 'mine'", email__guard="handler = 'mine'")
    assert "tabnanny" not in sys.modules
    for name in ("json.handler", "tabnanny.handler", "email.guard.handler"):
        assert load(name, tmp_path) == "mine"
    assert hasattr(sys.modules["json"], "loads")
    assert not {"tabnanny", "email.guard"} & set(sys.modules)


def test_a_file_beside_a_package_of_its_name_is_another_module(tmp_path, monkeypatch):
    """Python's own import takes the package, a configuration means the file."""
    package(tmp_path, "twofold", "handler = 'package'")
    write(tmp_path, twofold="handler = 'file'")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("twofold").handler == "package"
    assert load("twofold.handler", tmp_path) == "file"
    assert load("twofold.handler", None) == "package"


@pytest.mark.parametrize("name", ["at_home", "inside.at_home"])
def test_a_file_that_python_finds_too_has_the_name_it_has_there(name, tmp_path, monkeypatch):
    """The app that imports it later gets the same module."""
    write(tmp_path, **{name.replace(".", "__"): "handler = object()"})
    monkeypatch.syspath_prepend(tmp_path)
    handler = load(f"{name}.handler", tmp_path)
    assert importlib.import_module(name).handler is handler


def test_a_name_held_by_a_module_from_nowhere_is_left_to_it(tmp_path, monkeypatch):
    held = ModuleType("held_name")
    monkeypatch.setitem(sys.modules, "held_name", held)
    write(tmp_path, held_name="handler = 'mine'")
    assert load("held_name.handler", tmp_path) == "mine"
    assert sys.modules["held_name"] is held


def test_neighbours_are_importable_while_a_file_is_loaded(tmp_path):
    write(tmp_path, with_neighbour="from the_neighbour import handler", the_neighbour="handler = 'next door'")
    assert load("with_neighbour.handler", tmp_path) == "next door"
    with pytest.raises(LoadError, match="no module the_neighbour2"):
        load("the_neighbour2.handler", None)


def test_each_folder_has_its_own_neighbours(tmp_path):
    """Another configuration's word list of the same name would be the wrong guard."""
    for folder in ("first", "second"):
        write(
            tmp_path / folder, hooks_a=f"import words\nhandler = {folder!r}, words", hooks_b="import words as handler"
        )
        write(tmp_path / folder, words=f"banned = {folder!r}")
    first, second = tmp_path / "first", tmp_path / "second"
    loaded = {folder: load("hooks_a.handler", folder) for folder in (first, second, first, second)}
    for folder, (name, words) in loaded.items():
        assert name == words.banned == folder.name
        assert load("hooks_b.handler", folder) is words
        assert load("words.banned", folder) == folder.name
    assert sys.modules["words"] is loaded[first][1]


def test_each_folder_has_its_own_packages(tmp_path):
    """Relative imports stay within a configuration's folder, also where another has a package of the name."""
    for folder in ("first", "second"):
        package(tmp_path / folder, "guards", f"flavour = {folder!r}")
        write(tmp_path / folder, guards__hooks="from . import flavour\nfrom .lists import words as handler")
        write(tmp_path / folder, guards__lists="from guards import flavour\nwords = [flavour]")
        write(tmp_path / folder, guards__more="from .hooks import handler")
    for folder in ("first", "second"):
        handler = load("guards.hooks.handler", tmp_path / folder)
        assert handler == [folder]
        assert load("guards.more.handler", tmp_path / folder) is handler
    assert sys.modules["guards"].flavour == sys.modules["guards.hooks"].flavour == "first"


def test_a_neighbour_named_like_a_module_of_the_app_does_not_take_its_place(tmp_path, monkeypatch):
    """What Python finds by itself stays where it is; so do `__main__` and the libraries."""
    app, folder = tmp_path / "app", tmp_path / "folder"
    write(app, of_app="owner = 'app'")
    monkeypatch.syspath_prepend(app)
    module = importlib.import_module("of_app")
    main, library = sys.modules["__main__"], sys.modules["json"]
    write(folder, of_app="", __main__="", json="", beside="import json, of_app, __main__ as main\nhandler = 1")
    load("beside.handler", folder)
    assert (sys.modules["of_app"], sys.modules["__main__"], sys.modules["json"]) == (module, main, library)


def test_a_neighbour_written_since_the_last_load_is_found(tmp_path, monkeypatch):
    """Also on a file system whose clock is too coarse to tell."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path, early="import neighbour_one\nhandler = 1", neighbour_one="")
    load("early.handler", tmp_path)
    times = tmp_path.stat()
    write(tmp_path, late="from later import handler", later="handler = 2")
    os.utime(tmp_path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load("late.handler", tmp_path) == 2


def test_a_file_in_a_package_has_relative_imports(tmp_path):
    package(tmp_path, "pack", "flavour = 'salt'")
    write(tmp_path, pack__hooks="from . import flavour\nfrom .spice import pepper\nhandler = (flavour, pepper)")
    write(tmp_path, pack__spice="pepper = 'pepper'")
    assert load("pack.hooks.handler", tmp_path) == ("salt", "pepper")


def test_a_file_may_take_its_folder_from_the_path_itself(tmp_path):
    write(tmp_path, tidy="import sys, os\nsys.path.remove(os.path.dirname(__file__))\nhandler = 1")
    assert load("tidy.handler", tmp_path) == 1


def test_annotations_are_never_evaluated(tmp_path):
    """What LiteLLM's page writes would fail: names that are not imported, `Optional` with three types."""
    text = """
from typing import Optional

limit: Undefined = 3

class Handler:
    def hook(self, data: NotImported[1]) -> Optional[dict, str, Exception]:
        return data

handler = Handler()
"""
    write(tmp_path, annotated=text)
    handler = load("annotated.handler", tmp_path)
    assert type(handler).hook.__annotations__["return"] == "Optional[dict, str, Exception]"
    assert handler.hook(1) == load("annotated.limit", tmp_path) - 2


def test_code_that_python_cached_with_its_annotations_is_not_used(tmp_path):
    write(tmp_path, precompiled="limit: Undefined = 3")
    py_compile.compile(str(tmp_path / "precompiled.py"), doraise=True)
    assert load("precompiled.limit", tmp_path) == 3


def test_loading_leaves_no_cached_code_behind(tmp_path):
    """Code with its annotations unread must not become what a plain import of the file gets."""
    write(tmp_path, uncached="handler = 1")
    load("uncached.handler", tmp_path)
    assert not (tmp_path / "__pycache__").exists()


def test_a_file_may_declare_its_encoding(tmp_path):
    (tmp_path / "latin.py").write_bytes("# coding: latin-1\nhandler = 'é'".encode("latin-1"))
    assert load("latin.handler", tmp_path) == "é"


def test_a_files_tracebacks_show_its_lines(tmp_path):
    write(tmp_path, failing="def handler():\n    return {}['the missing key']")
    with pytest.raises(KeyError) as caught:
        load("failing.handler", tmp_path)()
    assert "return {}['the missing key']" in "".join(traceback.format_exception(caught.value))


def test_dataclasses_of_a_file_know_their_module(tmp_path):
    text = "from dataclasses import dataclass\n@dataclass\nclass Handler:\n    level: int = 3\nhandler = Handler()"
    write(tmp_path, with_dataclass=text)
    assert load("with_dataclass.handler", tmp_path).level == 3


WRONG_NAMES = {
    "": "expected module.attribute",
    "handler": "expected module.attribute",
    ".handler": "expected module.attribute",
    "module.": "expected module.attribute",
    "a..b": "expected module.attribute",
    "../outside.handler": "expected module.attribute",
    "/etc/outside.handler": "expected module.attribute",
    "s3://bucket/module.handler": "expected module.attribute",
    "hide_secrets": "not served by this version",
    "no_such_module.handler": "there is no module no_such_module, beside the configuration file or installed",
    "json.no_such_part.handler": "there is no module json.no_such_part, beside the configuration file or installed",
    f"{'a' * 300}.handler": f"there is no module {'a' * 300}, beside the configuration file or installed",
    "json.no_such_name": "json has no no_such_name",
}


@pytest.mark.parametrize(("name", "what"), WRONG_NAMES.items(), ids=list(WRONG_NAMES))
def test_a_name_that_leads_nowhere_is_one_line(name, what, tmp_path):
    with pytest.raises(LoadError) as caught:
        load(name, tmp_path)
    assert str(caught.value) == f"{name}: {what}"


WRONG_FILES = {
    "no attribute": ("other = 1", "broken.py has no handler", AttributeError),
    "raises": ("x = 1\nraise KeyError('k')", "broken.py line 2: KeyError: 'k'", KeyError),
    "raises below": (
        "def f():\n    return 1 / 0\nhandler = f()",
        "broken.py line 2: ZeroDivisionError: division by zero",
        ZeroDivisionError,
    ),
    "raises in many lines": (
        "raise ValueError('a\\n  b\\n')",
        "broken.py line 1: ValueError: a b",
        ValueError,
    ),
    "raises an attribute error": (
        "import json\njson.nothing",
        "broken.py line 2: AttributeError: module 'json' has no attribute 'nothing'",
        AttributeError,
    ),
    "syntax": ("def handler(:", "broken.py: SyntaxError: invalid syntax (broken.py, line 1)", SyntaxError),
    "imports what is not there": (
        "import no_such_library",
        "broken.py line 1: ModuleNotFoundError: No module named 'no_such_library'",
        ModuleNotFoundError,
    ),
}


@pytest.mark.parametrize(("text", "what", "cause"), WRONG_FILES.values(), ids=list(WRONG_FILES))
def test_a_file_that_fails_is_one_line_with_the_cause(text, what, cause, tmp_path):
    write(tmp_path, broken=text)
    with pytest.raises(LoadError) as caught:
        load("broken.handler", tmp_path)
    assert str(caught.value) == f"broken.handler: {what}"
    assert type(caught.value.__cause__) is cause


def test_a_file_that_failed_is_forgotten_and_may_be_mended(tmp_path):
    write(tmp_path, mended="handler = undefined")
    with pytest.raises(LoadError):
        load("mended.handler", tmp_path)
    assert "mended" not in sys.modules
    write(tmp_path, mended="handler = 1")
    assert load("mended.handler", tmp_path) == 1


def test_a_file_that_failed_takes_its_neighbours_with_it(tmp_path):
    """So that a mended neighbour is read anew; what was there before, and what is installed, stays."""
    package(tmp_path, "lists", "")
    write(
        tmp_path, lists__words="", other="handler = 1", failed="import other, lists.words, tabnanny\nraise ValueError"
    )
    load("other.handler", tmp_path)
    before = set(sys.modules)
    with pytest.raises(LoadError):
        load("failed.handler", tmp_path)
    assert set(sys.modules) - before == {"tabnanny"}
    assert before <= set(sys.modules)


def test_a_file_that_failed_leaves_what_is_installed_below_its_folder(tmp_path, monkeypatch):
    """An environment is often kept beside the configuration, and libraries in C are imported only once."""
    site = tmp_path / ".venv" / "site"
    write(site, installed_below="")
    monkeypatch.syspath_prepend(site)
    write(tmp_path, failed="import installed_below\nraise ValueError")
    with pytest.raises(LoadError):
        load("failed.handler", tmp_path)
    assert "installed_below" in sys.modules


def test_a_second_file_of_a_name_that_fails_gives_the_name_back(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, hooks_c="import words_c\nhandler = words_c", words_c="")
    write(second, hooks_c="import words_c\nraise ValueError", words_c="")
    handler = load("hooks_c.handler", first)
    before = dict(sys.modules)
    with pytest.raises(LoadError):
        load("hooks_c.handler", second)
    assert sys.modules == before
    assert sys.modules["words_c"] is handler


def test_a_file_that_exits_leaves_nothing_behind(tmp_path):
    """What is no mistake of the file goes its way, here to the interpreter."""
    write(tmp_path, leaving="raise SystemExit(3)")
    with pytest.raises(SystemExit):
        load("leaving.handler", tmp_path)
    assert "leaving" not in sys.modules


def test_an_installed_module_that_fails_is_one_line(tmp_path, monkeypatch):
    write(tmp_path, installed_broken="import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LoadError) as caught:
        load("installed_broken.handler", None)
    what = "can't import installed_broken: ModuleNotFoundError: No module named 'no_such_library'"
    assert str(caught.value) == f"installed_broken.handler: {what}"


def test_threads_that_load_the_same_file_run_it_once(tmp_path):
    write(tmp_path, in_threads="import threading\nhandler = object()", counted="times = []")
    write(tmp_path, in_threads="from counted import times\ntimes.append(1)\nhandler = object()")
    found: list[object] = []
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait(10)
        found.append(load("in_threads.handler", tmp_path))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 4
    assert len(set(map(id, found))) == 1
    assert load("counted.times", tmp_path) == [1]


def test_threads_that_load_files_of_one_name_get_each_its_own(tmp_path):
    """Also the neighbours, and LiteLLM's names are gone in the end."""
    text = "from litellm.caching import DualCache\nimport words_d\nhandler = words_d.owner"
    for number in range(4):
        write(tmp_path / str(number), hooks_d=text, words_d=f"owner = {number}")
    found: list[tuple[int, object]] = []
    barrier = threading.Barrier(8)

    def run(number: int) -> None:
        barrier.wait(10)
        found.append((number, load("hooks_d.handler", tmp_path / str(number))))

    threads = [threading.Thread(target=run, args=(number % 4,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == sorted((number % 4, number % 4) for number in range(8))
    assert not [name for name in sys.modules if name.partition(".")[0] == "litellm"]


class Guard:
    async def async_pre_call_hook(self, data): ...


class Needy(Guard):
    def __init__(self, level): ...


class Faulty(Guard):
    def __init__(self):
        raise ValueError("no\nluck")


class MuteError(Exception):
    def __str__(self):
        raise ValueError


class Mute(Guard):
    def __init__(self):
        raise MuteError


class Unreadable:
    async_pre_call_hook = type


class Crashing:
    @property
    def async_pre_call_hook(self):
        raise LookupError("not\nyet")


class Hasty(Guard):
    hook_timeout = "5"


class Idle(CallHooks):
    pass


class Misspelt(CallHooks):
    async def async_pre_cal_hook(self, data): ...


class Wanting:
    def async_moderation_hook(self, data, mood): ...


def test_an_object_with_a_hook_is_a_callback_as_it_is():
    guard = Guard()
    assert as_callback(guard) is guard


def test_a_class_is_instantiated():
    assert type(as_callback(Guard)) is Guard


def test_a_class_may_import_litellms_names_when_it_is_instantiated(tmp_path):
    text = """
class Handler:
    def __init__(self):
        from litellm.caching import DualCache
        self.cache = DualCache()

    async def async_moderation_hook(self, data): ...
"""
    write(tmp_path, importing=text)
    assert as_callback(load("importing.Handler", tmp_path)).cache.redis_cache is None


WRONG_CALLBACKS = {
    "a number": (5, "int has no hook; a callback has some of async_pre_call_hook, async_moderation_hook, "),
    "nothing": (None, "NoneType has no hook; "),
    "a function": (len, "builtin_function_or_method has no hook; "),
    "a class without hooks": (dict, "dict has no hook; "),
    "no hook of its own": (Idle, "Idle has no hook; "),
    "a misspelt hook": (Misspelt(), "Misspelt has no hook; "),
    "a class that needs arguments": (Needy, "Needy can't be made: TypeError: Needy.__init__() missing 1 required "),
    "a class that fails": (Faulty, "Faulty can't be made: ValueError: no luck"),
    "a class that fails without a word": (Mute, "Mute can't be made: MuteError: (it can't say what)"),
    "a hook without a signature": (
        Unreadable(),
        "Unreadable can't be read: ValueError: no signature found for builtin <class 'type'>",
    ),
    "a hook that can't be had": (Crashing(), "Crashing can't be read: LookupError: not yet"),
    "a time limit that is none": (Hasty(), "Hasty.hook_timeout: expected seconds above 0, got '5'"),
    "a hook that needs what there is not": (Wanting, "Wanting.async_moderation_hook needs mood; "),
}


@pytest.mark.parametrize(("value", "what"), WRONG_CALLBACKS.values(), ids=list(WRONG_CALLBACKS))
def test_what_is_no_callback_is_one_line(value, what):
    with pytest.raises(LoadError) as caught:
        as_callback(value)
    assert str(caught.value).startswith(what)
    assert "\n" not in str(caught.value)
