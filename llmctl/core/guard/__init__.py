"""The guard's decisions about one resident model: facts in, a finding and a step out. Nothing is done here.

A look is what can be seen at one moment without making the model work. What only shows over time (no CPU time for half
a minute, a runner that was another one before) stands in the memory, which every look carries on. The order is: look,
watch (the look into the memory), judge, decide.
"""
