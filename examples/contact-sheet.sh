#!/usr/bin/env bash
# contact-sheet.sh MOUNT [DIR]: a web page with every picture below MOUNT/images/DIR under its prompt; paints what is new.
#
#     examples/contact-sheet.sh mnt > sheet.html
set -euo pipefail
mnt=$1 dir=${2:-.}
cd "$mnt"

escape() { sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/"/\&quot;/g'; }

cat <<'HTML'
<!doctype html>
<meta charset="utf-8">
<title>promptfs contact sheet</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; display: grid; gap: 1.5em; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)) }
img { width: 100%; border-radius: 8px; box-shadow: 0 1px 4px #0003 }
figure { margin: 0 }
</style>
HTML
find "images/$dir" -name '*.png' | sort | while IFS= read -r picture; do
	prompt=prompts/${picture#images/}
	prompt=${prompt%.png}.txt
	printf '<figure><img src="data:image/png;base64,%s"><figcaption>%s</figcaption></figure>\n' \
		"$(base64 -w0 <"$picture")" "$(escape <"$prompt")"
done
