"""Images to token shards on disk, and the draws that read them back."""
