"""everything → index.html and metrics.json"""
