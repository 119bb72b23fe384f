# Programs that copy, archive and build: what they do to pictures that nobody has looked at yet.
. "$(dirname "$0")/lib.sh"
check "mounts" mount_fs
small='\nSize: 64x64, Steps: 1'
fresh() { # NAME: a prompt nobody has seen
	printf "%s $RANDOM$RANDOM$small" "$1" >"$prompts/$1.txt"
}
have() { command -v "$1" >/dev/null; }

fresh cp && cp "$images/cp.png" "$top/"
check "cp" cmp "$top/cp.png" "$images/cp.png"
fresh mv && mv "$images/mv.png" "$top/mv.png" 2>/dev/null
is "mv out fails" $? 1
check "but copies, and the image stays" cmp "$top/mv.png" "$images/mv.png"
fresh tar && tar -C "$images" -cf "$top/t.tar" tar.png && tar -C "$top" -xf "$top/t.tar"
check "tar" cmp "$top/tar.png" "$images/tar.png"
fresh sparse && tar -C "$images" -cSf "$top/s.tar" sparse.png && tar -C "$top" -xf "$top/s.tar"
check "tar --sparse" cmp "$top/sparse.png" "$images/sparse.png"
fresh wc
is "wc -c is stat" "$(wc -c <"$images/wc.png")" "$(stat -c %s "$images/wc.png")"
fresh tail
check "tail" test "$(tail -c 8 "$images/tail.png" | od -An -tx1 | tr -d ' ')" = 49454e44ae426082
fresh ddd && dd if="$images/ddd.png" of="$top/ddd.png" bs=7777 2>/dev/null
check "dd" cmp "$top/ddd.png" "$images/ddd.png"
fresh head && head -c 4 "$images/head.png" >/dev/null
check "after a head, all of it" is_png "$images/head.png" 64x64
fresh cpr && mkdir "$top/all" && cp -r --preserve=timestamps "$images/." "$top/all/"
check "cp -r" diff -r "$images" "$top/all"
if have rsync; then
	fresh rsync && rsync -a "$images/" "$top/rs/"
	check "rsync" diff -r "$images" "$top/rs"
	is "a second rsync copies nothing" "$(rsync -ai "$images/" "$top/rs/" | grep -c '^>f')" 0
else
	echo "skip - rsync: not installed"
fi
if have busybox; then
	fresh bb && busybox cp "$images/bb.png" "$top/bb.png"
	check "busybox cp" cmp "$top/bb.png" "$images/bb.png"
fi
if have git; then
	git() { command git -c user.name=t -c user.email=t@localhost -c init.defaultBranch=main -c safe.directory='*' "$@"; }
	fresh git
	git init -q "$top/repo" && git --git-dir="$top/repo/.git" --work-tree="$images" add git.png
	git --git-dir="$top/repo/.git" show :git.png >"$top/git.png"
	check "git add" cmp "$top/git.png" "$images/git.png"
	(cd "$prompts" && git init -q . && git add -A && git commit -qm one && echo more >git.txt && git commit -qam two &&
		git checkout -q HEAD~1 && git fsck --strict) >"$top/git" 2>&1
	is "a git repository in prompts/ ($(tail -1 "$top/git"))" $? 0
	check "whose checkout changes pictures back" cmp "$top/git.png" "$images/git.png"
	refuses "and which does not show" "No such file" stat "$images/.git"
else
	echo "skip - git: not installed"
fi
if have make; then
	printf 'copy.png: %s/make.png\n\tcp $< $@\n' "$images" >"$top/Makefile"
	fresh make && make -s -C "$top"
	check "make builds" cmp "$top/copy.png" "$images/make.png"
	check "and is content" make -q -C "$top"
	sleep 0.02; fresh make
	check "until an edit" bash -c '! make -q -C "$0"' "$top"
	make -s -C "$top"
	check "which it builds" cmp "$top/copy.png" "$images/make.png"
fi
# as editors do it
fresh ed && sed -i 's/ed/red/' "$prompts/ed.txt"
check "sed -i" is_png "$images/ed.png" 64x64
printf "vim$small" >"$prompts/4913" && rm "$prompts/4913" && mv "$prompts/ed.txt" "$prompts/ed.txt~" && printf "vim$small" >"$prompts/ed.txt"
check "vim's dance" is_png "$images/ed.png" 64x64
if have python3; then
	fresh py
	python3 - "$images/py.png" >"$top/py" 2>&1 <<-'PY'
		import mmap, os, shutil, sys
		size = os.stat(sys.argv[1]).st_size
		f = open(sys.argv[1], 'rb')
		m = mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ)
		whole = bytes(m)
		assert whole == open(sys.argv[1], 'rb').read() and len(whole) == size
		out = os.open('/dev/null', os.O_WRONLY)
		assert os.sendfile(out, f.fileno(), 0, size) == size
	PY
	is "stat, then mmap; sendfile" "$?$(cat "$top/py")" 0
fi
done_fs
