"""Parameter files: `params.yaml` and the profiles, read as YAML 1.2 and validated by the sections of `params`."""

from pathlib import Path

from pydantic import ValidationError

from vars_core import plain_yaml
from vars_core.params import ParameterError, Study, explain, unknown


def load(path: Path | str, sections: list[str] | None = None) -> dict:
    """The named sections of a parameter file (all by default) as plain, validated values.

    Raises ParameterError, one line per problem: unknown or missing names, wrong types, values out of bounds.
    Every parameter must be written in the file, so that the file hides nothing."""
    path = Path(path)
    raw = read(path)
    sections = list(Study.model_fields) if sections is None else list(sections)
    problems = [unknown(s, Study.model_fields) for s in [*raw, *sections] if s not in Study.model_fields]
    problems += [f"{s}: section missing" for s in sections if s in Study.model_fields and s not in raw]
    values = {}
    for name in [] if problems else sections:
        try:
            values[name] = validated(name, raw[name])
        except ParameterError as error:
            problems += str(error).splitlines()
    problems = problems or _across(values)
    if problems:
        raise ParameterError("\n".join(f"{path.name}: {problem}" for problem in dict.fromkeys(problems)))
    return values


def read(path: Path) -> dict:
    """The file's sections as they stand there, unchecked. Raises ParameterError for what `plain_yaml` refuses."""
    try:
        with path.open("rb") as file:
            raw = plain_yaml.parse(file.read(plain_yaml.LONGEST + 1))
    except FileNotFoundError:
        raise ParameterError(f"{path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path.name} is not YAML of parameters: {error!s:.500}") from None
    if not isinstance(raw, dict):
        raise ParameterError(f"{path.name} holds no sections")
    return raw


def validated(name: str, value):
    """One section (or the seed) as plain values; ParameterError names section and parameter."""
    if name == "seed":
        if type(value) is not int or not 0 <= value < 2**31:
            raise ParameterError(f"seed: a whole number from 0 to 2147483647; got {value!r}")
        return value
    if not isinstance(value, dict):
        raise ParameterError(f"{name}: a section of parameters; got {value!r}")
    model = Study.model_fields[name].annotation
    try:
        section = model.model_validate(value)
    except ValidationError as error:
        raise ParameterError(explain(error, name)) from None
    absent = [f"{name}.{field}: missing from the file" for field in model.model_fields if field not in value]
    if absent:
        raise ParameterError("\n".join(absent))
    return section.model_dump(mode="json")


def _across(values: dict) -> list[str]:
    problems = []
    size, shape = values.get("data", {}).get("image_size"), values.get("reconstruction", {})
    for name in ("patch", "denoiser_patch"):
        if size and shape.get(name) and size % shape[name]:
            problems.append(
                f"reconstruction.{name}: expected a divisor of data.image_size, {size}; got {shape[name]}"
            )
    kept = set(values.get("attacks", {}).get("unseen_epsilons", []))
    for section in ("reconstruction", "detection"):
        if shared := sorted(kept & set(values.get(section, {}).get("epsilons", []))):
            problems.append(f"attacks.unseen_epsilons: kept for testing, so not in {section}.epsilons; got {shared}")
    return problems
