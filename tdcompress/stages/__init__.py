"""One file per stage: its settings, and what it does with them and its inputs. Knows no recipe."""
