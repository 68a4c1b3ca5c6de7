"""The browser's view of finished runs: a local web application that only reads."""
