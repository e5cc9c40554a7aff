"""The recipe language: text to rules, rules to a plan; knows no bytes."""
