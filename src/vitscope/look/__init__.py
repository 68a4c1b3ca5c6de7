"""A folder of photographs taken apart in one command (`vitscope look`)."""
