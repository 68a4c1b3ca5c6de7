"""How local or global a feature is: views, transport, exemplars, CDS, partition, outliers."""
