"""Recipes from wherever they are: a name, a file, a run, or a function of anybody's package; and as plain data.

A file is YAML, with what Recipe has, nested as it is; a scorer is told by its name, or by ``package.module:Class``:

    encoder: lite
    retrieval: {index: s3://bucket/index, candidates: 15}
    scorers:
      - kind: density
        sigma_km: 300
      - kind: georanker
        model: Qwen/Qwen2-VL-7B-Instruct
        adapter: s3://bucket/ranker

A file, or a run's record, names code that is imported: take them, as code, from people you trust.
"""

import dataclasses
import functools
import importlib
import re
import typing
from pathlib import Path, PurePosixPath

import yaml

from geoloc.errors import UsageError
from geoloc.ranking.choosers import CHOOSERS
from geoloc.ranking.rankers import GeoRanker
from geoloc.ranking.scorers import Scorer
from geoloc.recipes.named import RECIPES
from geoloc.recipes.recipe import Recipe, Retrieval
from geoloc.storage import Folder, S3Options, describe, is_s3

SCORERS: dict[str, type[Scorer]] = CHOOSERS | {GeoRanker.name: GeoRanker}
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def read_recipe(name: str, s3: S3Options) -> Recipe:
    """The recipe of that name, ``package.module:function``, or file: YAML, or the ``run.json`` of a run that is to be
    repeated. Raises UsageError."""
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith((".yaml", ".yml", ".json")):
        return _from_file(name, s3)
    if not _OBJECT.fullmatch(name):
        raise UsageError(
            f"--recipe {name}: there is {', '.join(RECIPES)}; or name a .yaml file, a run's run.json, or package.module:function"
        )
    made = _imported(name, f"--recipe {name}")
    try:
        recipe = made() if callable(made) else made
    except Exception as error:  # it is the user's own code
        raise UsageError(f"--recipe {name}: gives no recipe ({describe(error)})") from error
    if not isinstance(recipe, Recipe):
        raise UsageError(f"--recipe {name}: gives {type(recipe).__name__}, not a Recipe")
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict:
    """As plain data, all of it: other versions may have other defaults.

    >>> recipe_to_dict(RECIPES["lknn"]())["scorers"]
    [{'kind': 'density', 'sigma_km': 445.0}]
    """
    scorers = [{"kind": _kind(type(scorer))} | dataclasses.asdict(scorer) for scorer in recipe.scorers]
    return dataclasses.asdict(dataclasses.replace(recipe, scorers=())) | {"scorers": scorers}


def recipe_from_dict(data: object, option: str) -> Recipe:
    """Raises UsageError, naming ``option`` and what does not fit.

    >>> recipe_from_dict({"name": "mine", "scorers": [{"kind": "density", "sigma_km": 300}]}, "--recipe mine").scorers
    (Density(sigma_km=300.0),)
    """
    values = dict(_mapping(data, option, ""))
    retrieval = values.pop("retrieval", {})
    if isinstance(retrieval, dict) and isinstance(retrieval.get("index"), str | None):
        retrieval = retrieval | {"index": [index] if (index := retrieval.get("index")) else []}  # one may stand alone
    retrieval = _built(Retrieval, retrieval, option, "retrieval.")
    scorers = values.pop("scorers", None)
    others = {"retrieval": retrieval}
    if scorers is not None:
        if not isinstance(scorers, list):
            raise UsageError(f"{option}: scorers: is not a list")
        others["scorers"] = tuple(_scorer(value, option, f"scorers[{n}].") for n, value in enumerate(scorers))
    return _built(Recipe, values, option, "", **others)


def _from_file(name: str, s3: S3Options) -> Recipe:
    parent, _, file = name.rpartition("/")
    option = f"--recipe {name}"
    try:
        content = Folder(parent, s3).read(file) if is_s3(name) else Path(name).expanduser().read_bytes()
        data = yaml.safe_load(content)
    except FileNotFoundError as error:
        raise UsageError(f"{option}: no such file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{option}: cannot read it ({describe(error)})") from error
    if name.endswith(".json"):
        data = _mapping(data, option, "").get("recipe")
        if data is None:
            raise UsageError(
                f"{option}: holds no recipe; give the run.json of a folder that geotag_archive.py wrote to"
            )
    return recipe_from_dict({"name": PurePosixPath(file).stem} | dict(_mapping(data, option, "")), option)


def _kind(scorer: type[Scorer]) -> str:
    return scorer.name if SCORERS.get(scorer.name) is scorer else f"{scorer.__module__}:{scorer.__qualname__}"


def _scorer(data: object, option: str, where: str) -> Scorer:
    values = {"kind": data} if isinstance(data, str) else dict(_mapping(data, option, where))
    kind = values.pop("kind", None)
    scorer = SCORERS.get(kind) if isinstance(kind, str) else None
    if scorer is None:
        if not isinstance(kind, str) or not _OBJECT.fullmatch(kind):
            raise UsageError(f"{option}: {where}kind: {kind!r}: there is {', '.join(SCORERS)}, or package.module:Class")
        scorer = _imported(kind, f"{option}: {where}kind: {kind}")
        if not (isinstance(scorer, type) and issubclass(scorer, Scorer) and dataclasses.is_dataclass(scorer)):
            raise UsageError(f"{option}: {where}kind: {kind}: is no Scorer (geoloc.ranking.scorers)")
    return _built(scorer, values, option, where)


def _built(kind: type, data: object, option: str, where: str, **others: object):
    """A dataclass of plain values, each of the type that its field says."""
    from pydantic import TypeAdapter, ValidationError

    values = _mapping(data, option, where)
    fields = [field.name for field in dataclasses.fields(kind)]
    kinds = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in fields:
            raise UsageError(f"{option}: {where}{name}: there is no such entry; there is {', '.join(fields)}")
        try:
            others[name] = TypeAdapter(kinds[name]).validate_python(value)
        except ValidationError as error:
            raise UsageError(f"{option}: {where}{name}: {value!r}: {error.errors()[0]['msg']}") from error
    try:
        return kind(**others)
    except TypeError as error:
        raise UsageError(f"{option}: {where.rstrip('.') or 'it'}: {error}") from error


def _mapping(data: object, option: str, where: str) -> dict:
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise UsageError(f"{option}: {where.rstrip('.') or 'it'} is not a mapping of names to values")
    return data


def _imported(path: str, what: str) -> object:
    """``what`` names it in errors."""
    module, _, name = path.partition(":")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as error:  # a module of the user's runs when it is imported, and may raise anything
        raise UsageError(f"{what}: cannot import it ({describe(error)}); is it on PYTHONPATH?") from error
