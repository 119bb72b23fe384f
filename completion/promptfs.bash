# bash completion of promptfs

_promptfs() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command= i
	local commands='mount unmount generate export convert bench models cache help'
	local common='--config --model --loras --store --cache --device --dtype --threads --queue-limit --queue-user-limit --memory-limit
		--cache-limit --packed-limit --nice --size-limit --log --log-file --help'
	local parameters='--negative --width --height --steps --guidance --cfg --seed --sampler --scheduler --rng --lora --set
		--trace -o -v'

	for ((i = 1; i < COMP_CWORD; i++)); do
		case " $commands " in *" ${COMP_WORDS[i]} "*) command=${COMP_WORDS[i]} && break ;; esac
	done
	case $before in
	--device) mapfile -t COMPREPLY < <(compgen -W 'auto cpu ref cuda:0' -- "$word") && return ;;
	--dtype) mapfile -t COMPREPLY < <(compgen -W 'f32 bf16 int8 fp8' -- "$word") && return ;;
	--type) mapfile -t COMPREPLY < <(compgen -W 'f32 bf16 fp8 q8_0 q4_0 q4_k' -- "$word") && return ;;
	--rng) mapfile -t COMPREPLY < <(compgen -W 'torch-cpu philox' -- "$word") && return ;;
	--log) mapfile -t COMPREPLY < <(compgen -W 'error warn info debug trace' -- "$word") && return ;;
	--store | --cache | --loras) mapfile -t COMPREPLY < <(compgen -d -- "$word") && return ;;
	--config | --log-file | --trace | -o) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
	--model) mapfile -t COMPREPLY < <(compgen -W "$(promptfs models 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$word"
		compgen -d -- "$word") && return ;;
	esac
	case $command in
	'') mapfile -t COMPREPLY < <(compgen -W "$commands $common --version" -- "$word") ;;
	generate) mapfile -t COMPREPLY < <(compgen -W "$parameters $common" -- "$word") ;;
	cache) mapfile -t COMPREPLY < <(compgen -W "stat ls verify gc rm pin unpin $common" -- "$word") ;;
	models) mapfile -t COMPREPLY < <(compgen -W "$(promptfs models 2>/dev/null | awk 'NR > 1 { print $1 }') --dry-run $common" -- "$word"
		compgen -d -- "$word") ;;
	help) mapfile -t COMPREPLY < <(compgen -W "$commands config prompt" -- "$word") ;;
	bench) mapfile -t COMPREPLY < <(compgen -W "--size --steps --repeats --limit --json --peer $common" -- "$word") ;;
	convert) mapfile -t COMPREPLY < <(compgen -W "--type $common" -- "$word"
		compgen -f -- "$word") ;;
	export) mapfile -t COMPREPLY < <(compgen -W "-o $common" -- "$word"
		compgen -f -- "$word") ;;
	*) mapfile -t COMPREPLY < <(compgen -W "-f -o --sandbox $common" -- "$word"
		compgen -d -- "$word") ;;
	esac
}
complete -o filenames -F _promptfs promptfs
