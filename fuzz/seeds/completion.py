import loom as lm
from loom import Thread, weave
t: Thread = lm.weave(1, b=2)
t.spin(3, c=4, d=5)
for x in [lm.Thread.spin]:
    x(weave(
