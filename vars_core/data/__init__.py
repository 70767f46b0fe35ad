"""Data: what a shop knows. Photos, categories and who bought what, drawn here or read from a folder, checked and
split.

A *catalogue* is a folder: `items.csv`, `images/<item_id>.<jpg|png|webp>` and, where there is real feedback,
`interactions.csv`. Notebook 1 makes a prepared catalogue of it: codes instead of ids, photos of one size in one
array, a split. Everything above this room reads only that.

In reading order:

    catalogue        prepare and load a catalogue, drawn or read
    folder           read a folder that somebody else made, row by row
    tables           one CSV file: encoding, header, shape of every row
    timestamps       numbers or dates of interactions, of which the order counts
    ids              ids that should be equal: Unicode forms, lost leading zeros
    photo_files      which files of a folder are photos, and what is skipped
    arrays           `.npy` files, hostile ones too
    photos           one file becomes a small RGB square, or a reason why not
    truncation       is a photo's file whole?
    colour_profiles  colours of wide gamuts, grey and print become sRGB
    decoded          all files become one array on disk, once
    split            held-out items, cold items, who may see what in the defence
    feedback         simulated users, who choose by what they can see
    taste_features   what a network sees in the photos, for simulated tastes
    synthetic        the drawn catalogue: poses, light, camera
    silhouettes      outlines of the drawn products
    textures         their colours, patterns, materials and backgrounds
    summary          `vars check`: what is wrong with a catalogue, what the study makes of it
    alike            photos that are white, or the same as another
    convert          `vars convert`: DVBPR, MovieLens, H&M, class folders
    writer           the folder that a converter writes; photos are linked
    kept             which interactions it keeps, and why none is left
    dvbpr_file       DVBPR's files
    unpickle         pickled data, read without running it

It imports the modules at the top of the package, no other room. Reading and converting need no torch: what needs it
imports it where it is used.

To add a source: a function in `convert` that writes a catalogue folder, and a line in CONVERTERS of
`vars_core.__main__`. Tests: tests/data/test_convert.py.
"""
