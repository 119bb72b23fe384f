#!/usr/bin/env bash
# prompts-in-git.sh MOUNT: prompts/ is an ordinary tree, so it can be a git repository; checking out an old commit brings
# the old pictures back (from the cache, without painting).
set -euo pipefail
mnt=$1
cd "$mnt/prompts"

[ -d .git ] || git init -q
git config user.name >/dev/null || git config user.name "$(id -un)"
git config user.email >/dev/null || git config user.email "$(id -un)@localhost"

echo 'a red heart' >greeting.txt
git add greeting.txt && git commit -qm 'a greeting' || true
echo 'a red heart on a pink background' >greeting.txt
git commit -qam 'a warmer greeting' || true

sum() { cksum <../images/greeting.png; }
echo "now:    $(sum)"
git -c advice.detachedHead=false checkout -q HEAD~1
echo "before: $(sum)"
git checkout -q -
echo "again:  $(sum)"
