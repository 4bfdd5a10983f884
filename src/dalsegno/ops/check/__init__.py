"""`dalsegno check`: an agent plays a conversation in one process, then in a fresh process for every step; what differs?

`conduct` starts the plays, `child` is one process of them, `compare` judges, `show` tells. READ `conduct` FIRST.
"""
