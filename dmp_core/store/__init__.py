"""Fingerprints, manifests, shards, atomic publishing and integrity. Independent of all stages."""

from dmp_core.store.fingerprint import canonical_json, fingerprint, sample_seed, sha256_folder, sha256_stream
from dmp_core.store.locks import Lock, LockLost
from dmp_core.store.members import decode_member, open_image, read_npy, read_npz
from dmp_core.store.shards import (
    Chunk,
    Sample,
    ShardPlan,
    open_dataset,
    plan_shards,
    read_artefact,
    read_shard,
    sample_key,
    shard_plans,
    shard_reader,
    unfinished,
    write_shards,
)
from dmp_core.store.skipped import Bounds, SkipCount, Skipped
from dmp_core.store.workspace import (
    Artefact,
    FileRecord,
    Manifest,
    Workspace,
    record_files,
    sidecars,
    staged_folder,
)

__all__ = [
    "Artefact",
    "Bounds",
    "Chunk",
    "FileRecord",
    "Lock",
    "LockLost",
    "Manifest",
    "Sample",
    "ShardPlan",
    "SkipCount",
    "Skipped",
    "Workspace",
    "canonical_json",
    "decode_member",
    "fingerprint",
    "open_dataset",
    "open_image",
    "plan_shards",
    "read_artefact",
    "read_npy",
    "read_npz",
    "read_shard",
    "record_files",
    "sample_key",
    "sample_seed",
    "sha256_folder",
    "sha256_stream",
    "shard_plans",
    "shard_reader",
    "sidecars",
    "staged_folder",
    "unfinished",
    "write_shards",
]
