"""Code of your own that a recipe names: `path/file.py:name` or `package.module:name`, read and run when it is used.

A relative path starts at the recipe's file. Nothing is executed that is not named, and a name is looked up once it is
needed: reading a recipe runs no code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import (
    AfterValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from opengrit.core.errors import RecipeError, first_line
from opengrit.core.escaping import shortened
from opengrit.core.messages import nearest
from opengrit.core.numbered_files import all_of

OWN_CODE = "own_code"  # the folder of a run that keeps the sources
FOLDER = "folder"  # what a recipe's folder is called in pydantic's context
_FUNCTION = re.compile(r"(?P<file>.+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
_TEXTS = (".txt", ".md")
RAISED = (
    Exception,
    SystemExit,
)  # what code of others may raise: exit() in it ends no command of ours without a word
FORM = "my_file.py:my_function or my_package.my_module:my_function"


class Reference(str):
    """Your own code as a recipe names it: text like any other, that knows the folder which a relative path starts from."""

    folder: str

    def __new__(cls, text: str, *, folder: str = "") -> Reference:
        made = super().__new__(cls, text)
        made.folder = folder
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str]]:
        return (str(self),), {"folder": self.folder}

    @property
    def name(self) -> str:
        """The function's name; of a text file, the file's."""
        return os.path.basename(self) if is_text_file(self) else self.rpartition(":")[2]


def is_function(text: str) -> bool:
    """Whether a text names a function: `file.py:name` or `package.module:name`."""
    return _FUNCTION.fullmatch(text) is not None


def is_text_file(text: str) -> bool:
    """Whether a text names a file of plain text: it ends in .txt or .md."""
    return text.endswith(_TEXTS)


def looks_own(value: object) -> bool:
    """Whether a value is meant to name something of your own, well formed or not: no name of ours has a colon or a dot."""
    return isinstance(value, str) and (":" in value or "/" in value or value.endswith((".py", *_TEXTS)))


def _referenced(value: Any, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> str:
    if isinstance(value, Reference):  # from another recipe: it keeps its folder
        return value
    text: str = read(value)
    return Reference(text, folder=(info.context or {}).get(FOLDER, "")) if looks_own(text) else text


def _of_a_function(value: str) -> str:
    if not is_function(value):
        raise ValueError(
            f"a function of your own is {FORM}, got {str(value)!r}; write it in one of the two forms"
        )
    return value


AnyReference = Annotated[str, WrapValidator(_referenced)]
"""A text of a recipe, as a `Reference` where it looks like one; whoever uses it says which forms are possible."""

FunctionReference = Annotated[AnyReference, AfterValidator(_of_a_function)]
"""A `Reference` to a function."""


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of your own as a run uses it: what the recipe calls it, where it lies, and its text."""

    reference: str
    path: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @property
    def kept_name(self) -> str:
        """What a run calls its copy: the file's name, or the module's."""
        place = self.reference if is_text_file(self.reference) else self.reference.rpartition(":")[0]
        return os.path.basename(place) if place.endswith((".py", *_TEXTS)) else f"{place}.py"


@dataclass(frozen=True, slots=True)
class OwnFunction:
    """A function of your own, and the file that it is defined in."""

    file: OwnFile
    call: Callable[..., Any]

    @property
    def name(self) -> str:
        """The name that the recipe gives."""
        return self.file.reference.rpartition(":")[2]

    @property
    def place(self) -> str:
        """Its file and first line, as an editor takes them."""
        code = getattr(inspect.unwrap(self.call), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else self.file.path

    def raised_at(self, error: BaseException) -> str:
        """The line of its file that an error passed through last; else where the function begins."""
        frame, found = error.__traceback__, None
        while frame is not None:
            if frame.tb_frame.f_code.co_filename == self.file.path:
                found = frame.tb_lineno
            frame = frame.tb_next
        return self.place if found is None else f"{self.file.path}:{found}"


def find(reference: Reference) -> OwnFile:
    """The file that a reference names, read and not run. Raises RecipeError where there is none."""
    if is_text_file(reference):
        return _file(reference, str(reference))
    place = reference.rpartition(":")[0]
    if place.endswith(".py"):
        return _file(reference, place)
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, AttributeError, ValueError) as error:
        raise _no_module(reference, place, error) from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise _no_module(reference, place, None)
    return OwnFile(str(reference), spec.origin, _read(reference, Path(spec.origin)))


def load(reference: Reference) -> OwnFunction:
    """The function that a reference names; its file is executed now, once, under a module name of its own.

    Raises RecipeError, with the file and the line, where the file cannot be read or executed, or has no such function.
    """
    file = find(reference)
    place, _, name = reference.rpartition(":")
    module = _executed(file) if place.endswith(".py") else _imported(file, place)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        near = nearest(name, known)
        remedy = f"did you mean {near}?" if near else f"it defines {', '.join(known) or 'no function'}"
        raise RecipeError(
            f"a recipe must name an existing function, {file.path} has no function {name!r}; {remedy}"
        )
    return OwnFunction(file, found)


def is_asynchronous(call: Callable[..., Any]) -> bool:
    """Whether what a call returns is awaited: a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)


def keywords_of(
    function: OwnFunction, keywords: Mapping[str, Any], *, arguments: int, named: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The keywords that a recipe gives a function, read by its annotations; it is called with `arguments` and `named` too.

    Raises RecipeError where the function does not take them or has others without a default, or where a value is not
    what its annotation says.
    """
    signature = inspect.signature(function.call)
    try:
        signature.bind(*[None] * arguments, **dict.fromkeys(named), **keywords)
    except TypeError as error:
        raise RecipeError(
            f"a call's keywords must fit the function, {function.file.reference} is called with "
            f"{', '.join([*named, *keywords]) or 'none'} and is {function.name}{signature} ({error}); change one of the "
            f"two ({function.place})"
        ) from error
    try:
        hints = get_type_hints(function.call)
    except (NameError, TypeError):  # annotations that only a type checker can read
        hints = {}
    return {key: _read_as(hints.get(key), key, value, function) for key, value in keywords.items()}


def _read_as(hint: Any, key: str, value: Any, function: OwnFunction) -> Any:
    if hint is None:
        return value
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        rule = error.errors()[0]["msg"]
        raise RecipeError(
            f"a keyword must fit the function's annotation, {key} of {function.file.reference} is "
            f"{shortened(repr(value))} ({rule[0].lower() + rule[1:]}); change it, or the annotation ({function.place})"
        ) from error


# -- finding and running ---------------------------------------------------------------------------------------------


def _file(reference: Reference, written: str) -> OwnFile:
    """A file beside the recipe; where the recipe is a run's own, the copy that the run kept."""
    path = Path(reference.folder) / written
    if not path.is_file():
        kept = Path(reference.folder) / OWN_CODE / os.path.basename(written)
        if not kept.is_file():
            raise RecipeError(
                "a path of your own code is relative to the recipe's folder (for an option: the working folder), "
                f"{str(reference)!r} names {path}, which is not a file; check the path"
            )
        path = all_of(kept)[-1]
    return OwnFile(str(reference), os.path.abspath(path), _read(reference, path))


def _read(reference: Reference, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"your own file must be readable UTF-8, {path} of {str(reference)!r} is not ({first_line(error)}); fix it"
        ) from error


def _executed(file: OwnFile) -> types.ModuleType:
    mark = hashlib.sha256(f"{file.path}\0{file.text}".encode()).hexdigest()[:16]
    name = f"opengrit_own_{re.sub(r'[^0-9A-Za-z]', '_', Path(file.path).stem)}_{mark}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file.path, loader=_Loader(name, file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up
    try:
        spec.loader.exec_module(module)
    except RAISED as error:  # any code may raise anything, and it is its own mistake
        del sys.modules[name]
        raise _not_run(file, error) from error
    return module


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the text whose hash the run keeps, and no compiled file of an earlier one."""

    def __init__(self, name: str, file: OwnFile) -> None:
        super().__init__(name, file.path)
        self._text = file.text

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self._text.encode("utf-8"), self.path)


def _imported(file: OwnFile, module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except RAISED as error:  # as above
        raise _not_run(file, error) from error


def _not_run(file: OwnFile, error: BaseException) -> RecipeError:
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == file.path else None
    where = OwnFunction(file, _not_run).raised_at(error) if line is None else f"{file.path}:{line}"
    where = where if where.startswith(file.path) else file.path
    return RecipeError(
        f"your own code must run, {file.reference} does not: {type(error).__name__} ({first_line(error)}); fix {where}"
    )


def _no_module(reference: Reference, module: str, error: Exception | None) -> RecipeError:
    said = f" ({first_line(error)})" if error else ""
    return RecipeError(
        f"{str(reference)!r} must name an importable Python module, {module} is not{said}; install its package, add its "
        f"folder to PYTHONPATH, or name its file ({module.rpartition('.')[2]}.py:{reference.name})"
    )
