"""From columns of images and labels to trained weights.

What belongs here: latents (`latents`), the order in which training sees them (`data`), and the loop that all
training uses (`loop`) with its checkpoints (`checkpoints`) and logs (`logs`).
Plain functions over arrays and paths: nothing here depends on shards, stages or the command line.

Import the modules by name; this package imports none of them, since each needs torch.
"""
