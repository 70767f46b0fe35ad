"""`vars`: the study from the command line. `python -m vars_core` does the same.

Rooms are imported by the command that needs them, so that help is shown at once."""

import argparse
import io
import math
import os
import signal
import sys
from pathlib import Path

from vars_core.errors import InputError

CONVERTERS = {  # kind, a function of `data.convert`: what it reads, what that is, an example
    "dvbpr": (
        {"file": "a .npy file"}, "Amazon or Tradesy as DVBPR has them, with their own split.",
        "AmazonMenWithImgPartitioned.npy data/raw/men",
    ),
    "movielens": (
        {"folder": "ml-latest-small, ml-1m, ml-25m …", "posters": "a folder of <movieId>.jpg"},
        "MovieLens and film posters.",
        "ml-latest-small posters data/raw/films",
    ),
    "hm": (
        {"folder": "articles.csv, transactions_train.csv, images/"}, "H&M as it lies on Kaggle.",
        "h-and-m data/raw/hm --share 0.05",
    ),
    "classes": (
        {"folder": "a folder of photos for each class"}, "Class folders; feedback will be simulated.",
        "photos-by-class data/raw/things",
    ),
}  # fmt: skip
SHARED = ("movielens", "hm")  # converters that can take a share of the users


def _check(options) -> int:
    if options.folder is None:
        if options.profile or options.params:
            raise InputError("--profile and --params are what a catalogue is checked with: name its folder, too")
        from vars_core.pipeline import check

        return check.report()
    from vars_core import paths
    from vars_core.data import summary

    return summary.check(options.folder, options.params or _parameter_file(options.profile, paths.root()))


def _parameter_file(profile: str | None, root: Path) -> Path:
    known = sorted(path.stem for path in (root / "profiles").glob("*.yaml"))
    if profile is not None and profile not in known:
        raise InputError(f"no profile is called {profile}; known: {', '.join(known)}")
    return root / "profiles" / f"{profile}.yaml" if profile else root / "params.yaml"


def _compare(options) -> int:
    from vars_core.pipeline import compare

    return compare.report(options)


def _convert(options) -> int:
    from vars_core.data import convert

    given = {name: getattr(options, name) for name in (*CONVERTERS[options.kind][0], "out")}
    if options.kind in SHARED:
        given["share"] = options.share
    if options.kind == "movielens":
        given["min_rating"] = options.min_rating
    counts = getattr(convert, options.kind)(**given)
    said = (what if number is None else f"{number:,} {what}" for what, number in counts.items())
    print(f"{options.out}: " + ", ".join(said))
    return 0


def _screen(options) -> int:
    from vars_core.detection import screen

    return screen.run(options)


def _study(options) -> int:
    from vars_core.pipeline import study

    return study.run(options)


def _pretrained(options) -> int:
    from vars_core import param_file, paths
    from vars_core.detection import kept_models
    from vars_core.pipeline import kept

    root = paths.root()
    work = options.work or (root / "scratch" / "studies" / options.study if options.study else root)
    if not (work / "params.yaml").is_file():
        raise InputError(f"{work}: no run's folder, there is no params.yaml in it")
    profile = kept.profile(root, options.study)
    os.environ["VARS_WORKSPACE"] = str(work.resolve())
    values, made_of = param_file.load(work / "params.yaml"), kept.made_of(root, options.study)
    folder = kept_models.keep(values, profile, made_of, kept.commit(root), options.licence)
    print(f"{folder.relative_to(root)}: see its README.md")
    return 0


def _stage(options) -> int:
    from vars_core.pipeline import stage

    seconds = stage.run(options.name, options.params)
    print(f"{options.name}: {seconds / 60:.1f} min")
    return 0


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"a number expected, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"a share between 0 and 1 expected, got {text}")
    return value


def _batch(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 4096):
        raise argparse.ArgumentTypeError(f"a number of photos from 1 to 4096 expected, got {text}")
    return int(text)


def _command(commands, run, name: str, help: str, example: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    lines = "\n".join(f"  {line}" for line in example.split("\n"))
    parser = commands.add_parser(
        name, help=help, description=help, epilog=f"for example:\n{lines}", formatter_class=raw
    )
    parser.set_defaults(run=run)
    return parser


def parser() -> argparse.ArgumentParser:
    """All commands with their options; `run` of what it parses is what to call with it."""
    top = argparse.ArgumentParser(
        prog="vars", description="Attacks on visually-aware recommenders and a defence: the study."
    )
    commands = top.add_subparsers(required=True, metavar="command")

    one = _command(
        commands, _check, "check",
        "Is a catalogue fit for the study? Without a folder: are the reports those of this code?",
        "vars check data/raw/shop",
    )  # fmt: skip
    one.add_argument("folder", type=Path, nargs="?", help="a catalogue: items.csv, images/, perhaps interactions.csv")
    values = one.add_mutually_exclusive_group()
    values.add_argument("--params", type=Path, help="parameters to check it with; params.yaml by default")
    values.add_argument("--profile", help="a file of profiles/ to check it with instead, such as real")

    one = _command(
        commands, _compare, "compare",
        "Do the headline numbers of a run, such as one on another machine, fall inside the committed intervals?",
        "vars compare\nvars compare scratch/studies/shop --against reports/catalogues/shop",
    )  # fmt: skip
    one.add_argument("folder", type=Path, nargs="?", help="metrics of a run, or its work folder; reports/ by default")
    one.add_argument("--against", type=Path, help="other metrics; by default those of the last commit")

    one = _command(
        commands, None, "convert", "Make a catalogue of other people's files.",
        "vars convert dvbpr AmazonMenWithImgPartitioned.npy data/raw/men",
    )  # fmt: skip
    kinds = one.add_subparsers(required=True, dest="kind", metavar="kind")
    for kind, (sources, what, example) in CONVERTERS.items():
        two = _command(kinds, _convert, kind, what, f"vars convert {kind} {example}")
        for source, content in sources.items():
            two.add_argument(source, type=Path, help=content)
        two.add_argument("out", type=Path, help="the catalogue's folder, which must not be there yet")
        if kind in SHARED:
            two.add_argument("--share", type=_share, default=1.0, help="of the users to keep, such as 0.05")
        if kind == "movielens":
            two.add_argument("--min-rating", type=_number, help="leave out ratings below, such as 4; none by default")

    one = _command(
        commands, _screen, "screen",
        "Screen a folder of photos with a fitted defence; writes scores.csv and flagged.png, worst first.",
        "vars screen photos/ --out screened\ntorchrun --nproc-per-node 4 -m vars_core screen photos/ --out screened",
    )  # fmt: skip
    one.add_argument("folder", type=Path, help="photos, in subfolders too")
    one.add_argument("--out", type=Path, default=Path("screened"), help="where results go (%(default)s)")
    one.add_argument("--defence", type=Path, help="folder that Defence.save wrote; models/defence/contrastive")
    one.add_argument("--extractor", type=Path, help="the one it was fitted with; by default where the stages put it")
    one.add_argument("--rate", default="1", help="false alarms among honest photos, per cent (%(default)s)")
    one.add_argument("--batch", type=_batch, help="photos at once; 32, on a GPU 256")
    rules = "write features of photos that aren't flagged, served behind noise by one draw, the mean or the median"
    one.add_argument("--serve", choices=("one", "mean", "median"), metavar="RULE", help=rules)
    one.add_argument("--draws", type=_batch, default=64, help="behind a mean or a median (%(default)s)")

    one = _command(
        commands, _study, "study",
        "Run all notebooks on another catalogue or profile, in a work folder of its own; can be taken up again.",
        "vars study posters --data data/raw/posters --weights squeezenet1_0.safetensors --profile real --publish",
    )  # fmt: skip
    one.add_argument("name", help="of the study, such as posters")
    one.add_argument("--data", type=Path, help="folder of a catalogue; drawn here by default")
    one.add_argument("--weights", type=Path, help="safetensors file of the extractor")
    one.add_argument("--extractor", help="model name; the weights' file name by default")
    one.add_argument("--profile", default="laptop", help="a file of profiles/ (%(default)s)")
    one.add_argument("--set", action="append", default=[], metavar="SECTION.PARAMETER=VALUE")
    one.add_argument("--work", type=Path, help="work folder; scratch/studies/NAME by default")
    one.add_argument("--only", nargs="+", default=[], metavar="NN", help="numbers of notebooks to run")
    place = "copy metrics and tables to reports/catalogues/NAME, or to reports/gpu"
    one.add_argument("--publish", nargs="?", choices=["catalogues", "gpu"], const="catalogues", help=place)
    one.add_argument("--replace", action="store_true", help="publish over results of another catalogue or profile")

    one = _command(
        commands, _pretrained, "pretrained",
        "Pack the models of the main run, or of a study that was published, into pretrained/, with a card.",
        'vars pretrained\nvars pretrained shop --licence "Photos of shop.example, CC BY 4.0"',
    )  # fmt: skip
    one.add_argument("study", nargs="?", help="its name in reports/catalogues/; the main run by default")
    one.add_argument("--work", type=Path, help="its work folder; scratch/studies/STUDY by default")
    one.add_argument("--licence", help="of the photos it learned from: whose they are and what one may do")

    one = _command(
        commands, _stage, "stage", "Run one notebook as a stage of the pipeline, as `dvc repro` does.",
        "vars stage 03_attacks",
    )  # fmt: skip
    one.add_argument("name", help="a notebook of notebooks/, such as 03_attacks")
    one.add_argument("--params", type=Path, help="parameter file; params.yaml by default")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it succeeded, 1 after one line that says why not, 130 when it was stopped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name, or ε, on a terminal that has no letter for it
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # it stops as Ctrl-C does, and cleans up
    try:
        return options.run(options)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "vars_core":
            raise
        print(
            f"{sys.executable} has no {error.name}: this Python isn't the study's; "
            f"`. .venv/bin/activate` first, or `make env`", file=sys.stderr,
        )  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("stopped; what was there before is as it was, and the same command goes on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
