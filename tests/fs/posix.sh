# prompts/ is a complete tree: what programs do to files there, and that it reaches the store.
. "$(dirname "$0")/lib.sh"
check "mounts" mount_fs
below=$store/prompts
cd "$prompts" || exit 1

echo "one" >a.txt
check "written through to the store" cmp a.txt "$below/a.txt"
echo "two" >>a.txt
is "append" "$(tr '\n' ' ' <a.txt)" "one two "
exec 6>>a.txt; echo "three" >&6; echo "four" >>a.txt; echo "five" >&6; exec 6>&-
is "two appenders" "$(tr '\n' ' ' <a.txt)" "one two three four five "
truncate -s 3 a.txt
is "truncate" "$(cat a.txt)" one
truncate -s 10 a.txt
is "grow" "$(stat -c %s a.txt)" 10
printf 'XY' | dd of=a.txt bs=1 seek=5 conv=notrunc 2>/dev/null
is "write in the middle" "$(hex a.txt 0 10)" 6f6e6500005859000000
check "fallocate" fallocate -l 100 a.txt
is "its size" "$(stat -c %s a.txt)" 100
check "sync" sync a.txt
check "sync of a folder" sync .

touch -d "2020-01-02 03:04:05.123456789" a.txt
is "nanoseconds" "$(stat -c %y a.txt)" "$(stat -c %y "$below/a.txt")"
check "all nine digits" bash -c 'stat -c %y a.txt | grep -q "05.123456789"'
chmod 4751 a.txt
is "modes" "$(stat -c %a a.txt)" 4751
(umask 027 && echo x >u.txt && mkdir u)
is "umask" "$(stat -c %a u.txt u | tr '\n' ' ')" "640 750 "
ln a.txt b.txt
is "hard links" "$(stat -c '%h %i' a.txt)" "2 $(stat -c %i b.txt)"
ln -s a.txt l.txt
is "symbolic links" "$(readlink l.txt)" a.txt
touch -h -d "2021-01-01" l.txt
is "a link's own time" "$(stat -c %y l.txt | cut -c1-10)" 2021-01-01
mkfifo f
(echo through >f &) ; is "fifos" "$(timeout 5 cat f)" through
is "inode numbers are those of a listing" "$(ls -i | awk '$2 == "b.txt" { print $1 }')" "$(stat -c %i b.txt)"
is "statfs" "$(stat -f -c %T . >/dev/null && df --output=size . | tail -1 | tr -d ' ')" "$(df --output=size "$below" | tail -1 | tr -d ' ')"

# ---- names
mkdir -p d/e
mv b.txt d/e/c.txt
check "rename into a folder" test -f d/e/c.txt -a ! -e b.txt
refuses "onto a folder" "directory|overwrite" mv -T d/e/c.txt d/e
refuses "rmdir of a full one" "not empty" rmdir d
mv d D && check "rename a folder" test -f D/e/c.txt
echo old >o1.txt; echo new >o2.txt
mv o2.txt o1.txt
is "rename over" "$(cat o1.txt)" new
if mv --help | grep -q -- --exchange; then
	echo 1 >x1; echo 2 >x2; mv --exchange x1 x2
	is "exchange" "$(cat x1 x2 | tr '\n' ' ')" "2 1 "
fi
mv -n x1 o1.txt 2>/dev/null; is "no clobber" "$(cat o1.txt)" new
refuses "O_EXCL" "exist" bash -c 'set -C; echo x >o1.txt'
exec 7<o1.txt; rm o1.txt
is "a removed file is read on" "$(cat <&7)" new
exec 7<&-
mkdir many && (cd many && for n in $(seq 300); do : >"n$n"; done)
is "300 names" "$(ls many | wc -l)" 300
check "removed while listed" rm -r many
refuses "an extended attribute" "not supported|No such|command not found" bash -c 'setfattr -n user.a -v b a.txt'
is "flock" "$(flock -n a.txt echo locked)" locked

# ---- limits
refuses "1 MiB is the end of a prompt" "File too large" dd if=/dev/zero of=big.txt bs=64k count=17
is "up to there it is written" "$(stat -c %s big.txt)" 1048576
refuses "also by truncate" "File too large" truncate -s 2M big.txt
check "other files may be larger" dd if=/dev/zero of=big.bin bs=64k count=32
mv big.bin big2.txt
refuses "a large file under a prompt's name is no picture" "Invalid argument" cat "$images/big2.png"

if command -v python3 >/dev/null; then
	python3 - >"$top/py" 2>&1 <<-'PY'
		import mmap, os
		with open('m.txt', 'w+b') as f:
		    f.write(b'a' * 8192); f.flush()
		    m = mmap.mmap(f.fileno(), 8192); m[4000:4003] = b'XYZ'; m.flush(); m.close()
		assert open('m.txt', 'rb').read()[3999:4004] == b'aXYZa'
		fd = os.open('m.txt', os.O_RDWR)
		os.unlink('m.txt')
		os.pwrite(fd, b'gone', 0); assert os.pread(fd, 4, 0) == b'gone' and os.fstat(fd).st_nlink == 0
		os.ftruncate(fd, 2); assert os.fstat(fd).st_size == 2; os.close(fd)
		d = os.scandir('.'); next(d); d.close()
		import fcntl
		with open('lock', 'w') as f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
	PY
	is "mmap, files without a name, locks" "$?$(cat "$top/py")" 0
fi
cd /
done_fs
