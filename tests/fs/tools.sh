# Programs that copy, archive and build: what they do to pictures that nobody has looked at yet.
. "$(dirname "$0")/lib.sh"
check "mounts" mount_fs
small='\nSize: 64x64, Steps: 1'
fresh() { # NAME: a prompt nobody has seen
	printf "%s $RANDOM$RANDOM$small" "$1" >"$prompts/$1.txt"
}
have() { command -v "$1" >/dev/null; }

tools=0
# Each makes a copy of a picture that nobody has looked at yet: a name, the programs it takes, and the command from $in to $out.
copies() { # NAME PROGRAMS COMMAND
	local program name=c$((tools + 1)) in out
	for program in $2; do
		have "$program" || { echo "skip - $1: no $program"; return; }
	done
	tools=$((tools + 1))
	fresh "$name"
	in=$images/$name.png out=$top/$name.png
	export in out top images prompts name
	if bash -c "set -o pipefail; $3" >/dev/null 2>"$top/stderr" && cmp -s "$out" "$in"; then
		ok "$1"
	else
		not_ok "$1" "no true copy: $(head -c 200 "$top/stderr" | tr '\n' ' ')"
	fi
}
copies cp cp 'cp "$in" "$out"'
copies "cp --reflink" cp 'cp --reflink=auto "$in" "$out"'
copies "cp --sparse=always" cp 'cp --sparse=always "$in" "$out"'
copies "cp --sparse=never -p" cp 'cp --sparse=never -p "$in" "$out"'
copies "cp -a, of a link" cp 'ln -s "$in" "$out.link" && cp -aL "$out.link" "$out"'
copies "cp --backup --update" cp 'touch -d 2000-01-01 "$out" && cp --backup --update "$in" "$out"'
copies install install 'install -m 600 "$in" "$out"'
copies cat cat 'cat "$in" >"$out"'
copies dd dd 'dd if="$in" of="$out" bs=7777'
copies "dd, direct" dd 'dd if="$in" of="$out" bs=4096 iflag=direct'
copies "head and tail" "head tail" '(head -c 100 "$in"; tail -c +101 "$in") >"$out"'
copies split split 'split -b 4000 "$in" "$out." && cat "$out".* >"$out"'
copies tee tee 'tee "$out" <"$in"'
copies gzip gzip 'gzip -c "$in" | gzip -dc >"$out"'
copies base64 base64 'base64 "$in" | base64 -d >"$out"'
copies tar tar 'tar -C "$images" -cf - "$name.png" | tar -C "$top" -xf -'
copies "tar --sparse" tar 'tar -C "$images" -cSf - "$name.png" | tar -C "$top" -xf -'
copies "tar --listed-incremental" tar 'tar -C "$images" --listed-incremental="$top/snar.$name" --no-check-device -cf - "./$name.png" | tar -C "$top" -xf -'
copies cpio cpio '(cd "$images" && echo "$name.png" | cpio -o) | (cd "$top" && cpio -id)'
copies bsdtar bsdtar 'bsdtar -C "$images" -cf - "$name.png" | bsdtar -C "$top" -xf -'
copies zip "zip unzip" 'cd "$images" && zip -q "$top/z.zip" "$name.png" && unzip -q "$top/z.zip" -d "$top"'
copies 7z 7z '7z a -bd "$top/z.7z" "$in" && 7z e -bd -o"$top" "$top/z.7z"'
copies rsync rsync 'rsync -a "$in" "$out"'
copies "rsync --checksum --sparse" rsync 'rsync -acS "$in" "$out"'
copies "rsync --inplace, by blocks" rsync 'head -c 9000 "$in" >"$out" && rsync -a --inplace --no-whole-file "$in" "$out"'
copies "busybox cp" busybox 'busybox cp "$in" "$out"'
copies "busybox tar" busybox 'busybox tar -C "$images" -cf - "$name.png" | busybox tar -C "$top" -xf -'
copies "busybox dd, sendfile" busybox 'busybox dd if="$in" of="$out" && busybox cat "$in" | busybox cmp - "$out"'
copies perl perl 'perl -MFile::Copy -e "copy(shift, shift) or die" "$in" "$out"'
copies tcl tclsh 'echo "file copy \$env(in) \$env(out)" | tclsh'
copies curl curl 'curl -s -o "$out" "file://$in"'
copies openssl openssl 'openssl base64 -in "$in" | openssl base64 -d -out "$out"'
copies gio gio 'gio copy "file://$in" "file://$out"'
copies "after vim" vim 'vim -es -u NONE -N -c "1s/^/red /" -c wq "$prompts/$name.txt"; grep -q "^red" "$prompts/$name.txt" && cp "$in" "$out"'
copies "after ed" ed 'printf "1s/^/red /\nw\nq\n" | ed -s "$prompts/$name.txt" && cp "$in" "$out"'
copies "after sed -i" sed 'sed -i "1s/^/red /" "$prompts/$name.txt" && cp "$in" "$out"'
copies "after perl -i" perl 'perl -i -pe "s/^/red / if \$. == 1" "$prompts/$name.txt" && cp "$in" "$out"'
copies "after patch" "diff patch" 'sed "1s/^/red /" "$prompts/$name.txt" >"$out.new"; (diff -u "$prompts/$name.txt" "$out.new" || true) | patch "$prompts/$name.txt" && cp "$in" "$out"'
copies "git hash-object" git 'git init -q "$top/objects" && cd "$top/objects" && git cat-file blob "$(git hash-object -w "$in")" >"$out"'
python_copies() { # NAME CODE with src and dst
	copies "python: $1" python3 "python3 -c 'import os, shutil, mmap, sys
src, dst = os.environ[\"in\"], os.environ[\"out\"]
size = os.stat(src).st_size
$2'"
}
python_copies "shutil.copyfile" 'shutil.copyfile(src, dst)'
# to another file system the kernel says EXDEV, and programs go on by reading
python_copies "copy_file_range" '
inside = os.environ["prompts"] + "/copied.bin"
with open(src, "rb") as f, open(inside, "wb") as t:
    left = size
    while left: left -= os.copy_file_range(f.fileno(), t.fileno(), left) or sys.exit("ended early")
shutil.copyfile(inside, dst)'
python_copies "sendfile" '
with open(src, "rb") as f, open(dst, "wb") as t:
    at = 0
    while at < size: at += os.sendfile(t.fileno(), f.fileno(), at, size - at) or sys.exit("ended early")'
python_copies "splice" '
with open(src, "rb") as f, open(dst, "wb") as t:
    r, w = os.pipe()
    left = size
    while left:
        n = os.splice(f.fileno(), w, left) or sys.exit("ended early")
        left -= n
        while n: n -= os.splice(r, t.fileno(), n)'
python_copies "mmap" '
with open(src, "rb") as f, open(dst, "wb") as t:
    t.write(mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ))'
python_copies "mmap, private and written" '
with open(src, "rb") as f, open(dst, "wb") as t:
    m = mmap.mmap(f.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    first, m[0] = m[0], 0
    m[0] = first
    t.write(m)'
python_copies "data and holes" '
with open(src, "rb") as f, open(dst, "wb") as t:
    at = os.lseek(f.fileno(), 0, os.SEEK_DATA)
    assert at == 0 and os.lseek(f.fileno(), 0, os.SEEK_HOLE) == size
    t.write(os.pread(f.fileno(), size, 0))'
python_copies "in pieces from the end" '
with open(src, "rb") as f, open(dst, "wb") as t:
    for at in reversed(range(0, size, 1000)): os.pwrite(t.fileno(), os.pread(f.fileno(), min(1000, size - at), at), at)'

fresh mv && mv "$images/mv.png" "$top/mv.png" 2>/dev/null
is "mv out fails" $? 1
check "but copies, and the image stays" cmp "$top/mv.png" "$images/mv.png"
fresh wc
is "wc -c is stat" "$(wc -c <"$images/wc.png")" "$(stat -c %s "$images/wc.png")"
fresh tail
check "tail" test "$(tail -c 8 "$images/tail.png" | od -An -tx1 | tr -d ' ')" = 49454e44ae426082
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
fresh ed
printf "vim$small" >"$prompts/4913" && rm "$prompts/4913" && mv "$prompts/ed.txt" "$prompts/ed.txt~" && printf "vim$small" >"$prompts/ed.txt"
check "vim's dance" is_png "$images/ed.png" 64x64

# ---- looking generates nothing
mkdir "$prompts/look"
for n in $(seq 20); do printf "look $n$small" >"$prompts/look/p$n.txt"; done
before=$(generated)
find "$images/look" -name '*.png' -size +1k -newermt 2020-01-01 -printf '%p %s %T@\n' >"$top/found"
is "find" "$(wc -l <"$top/found")" 20
check "ls, du, stat, test" bash -c 'ls -laR "$0" && du -a "$0" && stat "$0"/* && test -s "$0/p1.png" -a -r "$0/p1.png"' "$images/look"
[ -z "$(command -v rsync)" ] || check "rsync --dry-run" rsync -an "$images/look/" "$top/nowhere/"
check "tar of the names" tar -C "$images" -cf /dev/null look
check "xargs, sort, wc of names" bash -c 'find "$0" -print0 | sort -z | xargs -0 ls -d' "$images/look"
is "nothing was generated by looking" "$(generated)" "$before"
cp --reflink=always "$images/look/p1.png" "$top/reflink.png" 2>"$top/stderr"
is "cp --reflink=always fails, as between file systems" "$?$(grep -c 'failed to clone' "$top/stderr")" 11
tools=$((tools + 8))

# ---- indexers and thumbnailers
fresh index
if have file; then
	tools=$((tools + 1))
	is "file" "$(file -b "$images/index.png")" "PNG image data, 64 x 64, 8-bit/color RGB, non-interlaced"
fi
if have gdk-pixbuf-thumbnailer; then
	tools=$((tools + 1))
	fresh thumb
	check "a thumbnailer" gdk-pixbuf-thumbnailer -s 32 "$images/thumb.png" "$top/thumb.png"
fi
cp "$(command -v cat)" "$top/tumblerd" && cp "$top/tumblerd" "$top/baloo_file_extractor"
fresh shy
for program in tumblerd baloo_file_extractor; do
	refuses "$program is turned away" "denied" "$top/$program" "$images/shy.png"
done
cat "$images/shy.png" >/dev/null
check "but may have what is there" "$top/tumblerd" "$images/shy.png"

# ---- inotify
if have inotifywait; then
	tools=$((tools + 1))
	fresh watched
	inotifywait -qm -e close_write,moved_to,delete --format '%e %f' "$prompts" >"$top/events" 2>/dev/null &
	watcher=$!
	sleep 0.5
	echo more >>"$prompts/watched.txt" && mv "$prompts/watched.txt" "$prompts/moved.txt" && rm "$prompts/moved.txt"
	seen() { [ "$(tr '\n' ' ' <"$top/events")" = "CLOSE_WRITE,CLOSE watched.txt MOVED_TO moved.txt DELETE moved.txt " ]; }
	check "inotify sees changes in prompts/" eventually 5 seen
	kill $watcher
else
	echo "skip - inotify: no inotifywait"
fi

# ---- web servers
fetched() { # NAME: length, checksum and kind that an HTTP client sees, of the whole, a part, and without the body
	local to="--unix-socket $top/web.sock http://localhost/$1.png"
	curl -sf -o "$top/web.png" -D "$top/head" $to && cmp "$top/web.png" "$images/$1.png" &&
		grep -qi "^content-length: $(stat -c %s "$images/$1.png")" "$top/head" && grep -qi '^content-type: image/png' "$top/head" &&
		curl -sf -r 100-299 -o "$top/part.png" $to && cmp "$top/part.png" <(tail -c +101 "$images/$1.png" | head -c 200) &&
		curl -sfI $to | grep -qi "^content-length: $(stat -c %s "$images/$1.png")"
}
if have nginx && have curl; then
	tools=$((tools + 1))
	fresh web
	cat >"$top/nginx.conf" <<-N
		$([ "$(id -u)" != 0 ] || echo 'user root;')
		daemon off; pid $top/nginx.pid; error_log $top/nginx.log;
		events { }
		http {
			access_log off; sendfile on; client_body_temp_path $top/n1; proxy_temp_path $top/n2; fastcgi_temp_path $top/n3;
			uwsgi_temp_path $top/n4; scgi_temp_path $top/n5;
			types { image/png png; }
			server { listen unix:$top/web.sock; root $images; }
		}
	N
	nginx -e "$top/nginx.log" -c "$top/nginx.conf" 2>/dev/null &
	web=$!
	check "nginx starts" eventually 10 test -S "$top/web.sock"
	sleep 0.2
	check "nginx: whole, a part, the head" fetched web
	sleep 1; printf "another$small" >"$prompts/web.txt"
	check "after an edit too" fetched web
	is "a removed one is 404" "$(rm "$prompts/web.txt"; curl -s -o /dev/null -w '%{http_code}' --unix-socket "$top/web.sock" http://localhost/web.png)" 404
	kill $web
	wait $web 2>/dev/null
else
	echo "skip - nginx: not installed, or no curl"
fi
if have python3; then
	tools=$((tools + 1))
	fresh http
	python3 - "$images" <<-'PY' 2>"$top/py"
		import functools, http.server, sys, threading, urllib.request
		handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
		server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
		threading.Thread(target=server.serve_forever, daemon=True).start()
		with urllib.request.urlopen(f'http://127.0.0.1:{server.server_port}/http.png') as r:
		    assert r.read() == open(sys.argv[1] + '/http.png', 'rb').read()
		server.shutdown()
	PY
	is "python: http.server" $? 0
fi
echo "# $tools tools and ways of using them"
done_fs
