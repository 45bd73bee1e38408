"""Rubric files: the criteria of the judge ``rubric``, in autorubric's format."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from odesteer.errors import DataError, InvalidInputError
from odesteer.untrusted import is_number, parse_json

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def read_rubric(path: Path) -> Any:
    """The `autorubric.Rubric` of a JSON or YAML file.

    ``[{"name": …, "requirement": …, "weight": 10, "options": […]}, …]``, or the same under
    ``{"criteria": …}``, with ``"guidelines"`` for all of them beside. A criterion without options
    is met or not; a negative weight makes it a penalty. Raises `DataError` that says what is wrong
    with the file; unlike autorubric it demands names and refuses fields that nothing reads.
    """
    import yaml
    from autorubric import Criterion, CriterionOption
    from autorubric import Rubric as Parsed

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            read = yaml.safe_load(text)
        else:
            read = parse_json(text.encode(), f"the rubric {path}")
        parsed = Parsed.from_dict(read)
    except OSError as error:
        raise DataError(f"cannot read the rubric {path}: {error.strerror}.") from error
    except InvalidInputError as error:
        raise DataError(str(error)) from error
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"the rubric {path} cannot be used: {error}") from error
    for i, fields in enumerate(_criteria(read), 1):
        where = f"{path}, criterion {i}"
        name, weight = fields.get("name"), fields.get("weight", 10.0)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DataError(f"{where}: the name is {name!r}; write lower case words with hyphens.")
        _check_known(where, fields, Criterion.model_fields)
        if not fields["requirement"].strip():
            raise DataError(f"{where}: the requirement is empty; write what to look for.")
        if not is_number(weight) or weight == 0:
            raise DataError(f"{where}: the weight is {weight!r}; it must be a number, not 0.")
        for option in fields.get("options") or ():
            _check_known(f"{where}, an option", option, CriterionOption.model_fields)
    counts = Counter(criterion.name for criterion in parsed.rubric)
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise DataError(f"the rubric {path} has two criteria called {name!r}; rename one.")
    return parsed


def _criteria(read: Any) -> list[dict[str, Any]]:
    """The criteria of a rubric that autorubric accepted, sections flattened."""
    while isinstance(read, dict):
        read = next(read[key] for key in ("rubric", "sections", "criteria") if key in read)
    return [one for each in read for one in each.get("criteria", [each])]


def _check_known(where: str, fields: dict[str, Any], known: Any) -> None:
    unknown = sorted({*fields} - {*known})
    if unknown:
        raise DataError(f"{where}: unknown field {unknown[0]!r}; there are {', '.join(known)}.")
