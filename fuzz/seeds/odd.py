0x = f'{a!r:>{b}} {{}}' f"{f'{1:%H}'}"
y = rb'\x00' """t
"""
match y:
    case {'a': [1, *_], **rest} if x: pass
    case C(a=1) | None: ...
z = lambda a, /, *b, c=1: (yield)
async def f[T: int, *Ts](x: T = (await g())) -> 'list[T]':
	async with a as b, c: pass
type X[T] = list[T]
if x:
	pass
elif (y := 1): pass
@a.b[c](d)
class D(E, metaclass=F): x: int
t'{a}'
