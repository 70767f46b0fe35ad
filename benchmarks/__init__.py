"""How good and how fast, against peers and as the catalogue grows. One script per question: see README.md."""
