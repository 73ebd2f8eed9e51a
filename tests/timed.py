"""Files of a workspace that contain times, or digests of such files: equal runs need not agree on them."""

TIMED = ("manifest.json", "loss.csv", "metrics.json", "index.html", "single.html")
