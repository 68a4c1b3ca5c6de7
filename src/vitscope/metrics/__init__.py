"""How well an SAE reconstructs: mergeable float64 sums."""
