# tests/cli/lib.sh: what the tests of the program share. Sourced with the program as $1.
#
# Every test has a home of its own ($work), the test card as its default model, and no settings from outside.
set -u
program=$(realpath "$1")
root=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for variable in $(compgen -e | grep '^PROMPTFS_\|^XDG_'); do unset "$variable"; done
export HOME=$work TZ=UTC
cd "$work" || exit 2

# card NAME [JSON MEMBERS]: a model of the test card family in a folder of that name
card() {
	mkdir -p "$1"
	echo "{ \"_class_name\": \"PromptfsTestCard\", \"size\": 64, \"steps\": 4${2:+, $2} }" >"$1/model_index.json"
}

# run WORDS...: runs the program; leaves $status, $out, $err
run() {
	"$program" "$@" >"$work/.out" 2>"$work/.err" </dev/null
	status=$?
	out=$(tr -d '\0' <"$work/.out")
	err=$(cat "$work/.err")
}

# check NAME COMMAND...: a case that passes when the command does
check() {
	local name=$1
	shift
	if "$@"; then
		echo "ok - $name"
	else
		echo "not ok - $name: $* (status $status, stderr: ${err:-})"
		failed=1
	fi
}

# fails NAME STATUS TEXT WORDS...: the program exits so, with one line on stderr that holds the text, and prints nothing else
fails() {
	local name=$1 want=$2 text=$3
	shift 3
	run "$@"
	if [ $status = "$want" ] && [ "$(wc -l <"$work/.err")" = 1 ] && [[ $err == "promptfs: "*"$text"* ]] && [ -z "$out" ]; then
		echo "ok - $name"
	else
		echo "not ok - $name: status $status instead of $want, stdout: $out, stderr: $err"
		failed=1
	fi
}

is() { [ "$1" = "$2" ]; }
has() { [[ $1 == *"$2"* ]]; }
failed=0
finish() { exit $failed; }
