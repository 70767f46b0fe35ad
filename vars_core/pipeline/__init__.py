"""Pipeline: notebooks run as stages, studies of other catalogues, and whether the reports are those of the code.

It knows no room, and no room knows it: what a notebook computes is the notebook's.

In reading order:

    stage      `vars stage`: one notebook, executed; reports and artefacts replaced only when it succeeds
    study      `vars study`: all notebooks on another catalogue, in a folder of its own
    request    what a study computes: profile, catalogue, weights, `--set`
    publish    a study's results, copied to reports/catalogues/
    stages     what dvc.yaml declares
    check      `vars check`: what is stale, in seconds, without DVC's cache
    compare    `vars compare`: a run's headline numbers beside the committed ones and their intervals
    kept       which run the models of pretrained/ come from, and whether it is still the committed one
    lock       one run at a time in a folder
    faults     a full disk, a dead kernel, a folder that can't be written, in a line
    kernels    a process for each notebook, forked from one that has done the imports
    notebooks  notebooks as files: stripped, executed and canonical, without solutions
    solutions  the instructor's copies, executed with the solutions
    headlines  which numbers the tables of README.md and reports/README.md hold
    readme     those tables, made from the reports
    site       the site's sources, laid out for Sphinx
    slides     a course's slides, laid out for Sphinx
    timings    how long stages take, by machine and profile

It imports the modules at the top of the package only.

To add a notebook: `notebooks/NN_name.ipynb` with a `parameters` cell, its section in `vars_core.params`, params.yaml
and profiles/, a stage in dvc.yaml; what it writes for others in ARTEFACTS of `vars_core.paths`. Tests:
tests/test_tower.py compares them.
"""
