import gzip,json,glob,collections,os
seen={}
n=tot=0; fields=collections.Counter(); kinds=collections.Counter()
latest={}
for f in sorted(glob.glob('/tmp/train-cache/pairs/docs/*.jsonl.gz')):
    base=os.path.basename(f).rsplit('-',1)[0]
    latest[base]=f
print(len(latest))
for f in latest.values():
    for l in gzip.open(f,'rt'):
        r=json.loads(l)
        if 'Api' not in r: fields['other '+next(iter(r))]+=1; continue
        a=r['Api']; n+=1
        kinds[a.get('kind')]+=1
        for k,v in a.items(): fields[k]+=len(json.dumps(v))+len(k)+4
        tot+=len(json.dumps(a,separators=(',',':')))
print(n,tot/n); print({k:round(v/n,1) for k,v in fields.items()}); print(kinds)
