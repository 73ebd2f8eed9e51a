"""What several methods share, and nothing that only one of them needs."""
