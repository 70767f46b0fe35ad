"""The notebooks' code, run in this process with given parameters: what papermill runs, without kernels."""

import nbformat
from conftest import ROOT

from vars_core.pipeline import stages


def run(values, only=None):
    """Run the code of all notebooks, or of those whose names begin with one of `only`, exercises left out.

    VARS_WORKSPACE names the folder that artefacts and reports go to. `values` are the sections of a parameter file.
    Returns the last variables by notebook."""
    ended = {}
    for step in stages.stages(ROOT):
        if only and not step.notebook.startswith(tuple(only)):
            continue
        names = {"__name__": "__main__"}
        for number, cell in enumerate(nbformat.read(ROOT / "notebooks" / f"{step.notebook}.ipynb", 4).cells):
            tags = cell.metadata.get("tags", [])
            if cell.cell_type != "code" or "skip-execution" in tags:
                continue
            exec(compile(cell.source, f"{step.notebook}[{number}]", "exec"), names)
            if "parameters" in tags:
                names |= {section: values[section] for section in step.sections}
        ended[step.notebook] = names
    return ended
