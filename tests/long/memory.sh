# The daemon's memory at a constant number of names, while ever more pictures are made: what it remembers of them (outcomes,
# results of the resolver, finished pictures) has its limits, and at them its memory must stay.
#
#     ROUNDS=100 NAMES=200 bash tests/long/memory.sh ./promptfs
. "$(dirname "$0")/../fs/lib.sh"
rounds=${ROUNDS:-100} names=${NAMES:-200}
command -v python3 >/dev/null || { echo "skip - memory: no python3"; exit 0; }
set_delay 0
check "mounts" mount_fs --cache-limit 100MB
resident() { awk '/VmRSS/ { print $2 }' "/proc/$(server)/status"; }

# Every prompt is written anew, looked at from all sides and its picture read; some are renamed there and back, linked, made
# by a rename, removed, or wrong.
round() { # NUMBER
	python3 - "$mnt" "$1" "$names" <<-'PY'
		import os, sys
		mnt, number, names = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
		os.chdir(mnt)
		os.makedirs('prompts/d', exist_ok=True)
		def write(path, text):
		    with open(path, 'w') as f:
		        f.write(text)
		def read(path):
		    with open(path, 'rb') as f:
		        return f.read()
		for n in range(names):
		    prompt, image = f'prompts/d/p{n}.txt', f'images/d/p{n}.png'
		    kind = n % 10
		    text = f'round {number} prompt {n}\nSize: 64x64, Steps: 1'
		    if kind == 1:
		        write('prompts/d/new', text)
		        os.replace('prompts/d/new', prompt)
		    elif kind == 2 and os.path.exists(prompt):
		        os.remove(prompt)
		        write(prompt, text)
		    elif kind == 3:
		        write(prompt, text + ', Seed: -1')
		    elif kind == 4:
		        write(prompt, text + ', Steps: none')
		    else:
		        write(prompt, text)
		    if kind == 5:
		        os.rename(prompt, 'prompts/d/other.txt')
		        read('images/d/other.png')
		        os.rename('prompts/d/other.txt', prompt)
		    try:
		        assert len(read(image)) == os.stat(image).st_size and kind != 4
		    except OSError:
		        assert kind == 4
		    read(f'status/info/d/p{n}.json')
		for tree in 'prompts', 'images', 'status/info', 'status/errors':
		    for entry in os.scandir(f'{tree}/d'):
		        entry.stat()
		for name in 'metrics', 'queue', 'log':
		    read(f'status/{name}')
	PY
}
failed=0 shown=$((rounds / 12 + (rounds < 12)))
sizes=()
for number in $(seq "$rounds"); do
	round "$number" 2>>"$top/said" || failed=$((failed + 1))
	sizes+=("$(resident)")
	[ $((number % shown)) = 0 ] && echo "# $(generated) pictures of $names names: $(resident) kB"
done
is "every round did what it should: $(tail -n 1 "$top/said")" $failed 0
half=${sizes[rounds / 2 - 1]} end=${sizes[rounds - 1]}
check "memory stays: $half kB after half the rounds, $end kB at the end" test "$end" -le $((half + half / 20))
done_fs
