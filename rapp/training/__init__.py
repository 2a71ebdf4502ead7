"""Training: profile table and graphs in, run folder with an artifact out. Needs the extra `train`."""
