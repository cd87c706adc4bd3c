"""What a launch of a submission does on the simulated B200, and what a B200 would make of it.

`python eval.py --mode profile` shows it. Counts come from the run (an observer sees every load, product, wait
and store); times are modelled from measured hardware rates (`rates`) and say so.
"""
