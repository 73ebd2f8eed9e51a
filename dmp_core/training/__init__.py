"""From columns of images and labels to a trained adapter, and from an adapter to predictions.

What belongs here: latents (`latents`), the order in which training sees them (`data`), the trainer
(`finetune`), the loop that all training uses (`loop`) with its checkpoints (`checkpoints`) and logs (`logs`),
and inference over arrays (`predict`).
Plain functions over arrays and paths: nothing here knows of shards, stages or the command line.

Import the modules by name; this package imports none of them, since each needs torch.
"""
