"""What Dalsegno costs, as ratios to what the machine could do at best, measured in the same run. `python -m bench
--help`.
"""
