"""The notebooks' code, run in this process with given parameters: what papermill runs, without kernels."""

import nbformat
from conftest import ROOT

from vars_core.pipeline import notebooks, stages


def run(values, only=None, exercises=False):
    """Run the code of all notebooks, or of those whose names begin with one of `only`, exercises left out, or with
    them: then each exercise's check cell runs before its solution, and once more after it.

    VARS_WORKSPACE names the folder that artefacts and reports go to. `values` are the sections of a parameter file.
    Returns the last variables by notebook."""
    ended = {}
    for step in stages.stages(ROOT):
        if only and not step.notebook.startswith(tuple(only)):
            continue
        names, check = {"__name__": "__main__"}, None
        for number, cell in enumerate(nbformat.read(notebooks.source(ROOT, step.notebook), 4).cells):
            tags = cell.metadata.get("tags", [])
            if cell.cell_type != "code" or ("skip-execution" in tags and not exercises):
                continue
            exec(compile(cell.source, f"{step.notebook}[{number}]", "exec"), names)
            if "solution" in tags and exercises and check:
                exec(compile(check, f"{step.notebook}[check before {number}]", "exec"), names)
            check = cell.source if "check(" in cell.source and "exercise" in tags else None
            if "parameters" in tags:
                names |= {section: values[section] for section in step.sections}
        ended[step.notebook] = names
    return ended
