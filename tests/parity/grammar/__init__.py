"""Random statements over the tables of generated/. Every decision is drawn from a Choices (choices.py), whose zeros
mean the simplest form: a failing statement is made smaller by dropping and zeroing its choices (../generate.py)."""
