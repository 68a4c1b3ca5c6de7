"""The paper's numbers as data, and its tables and figures as targets that one command makes."""
