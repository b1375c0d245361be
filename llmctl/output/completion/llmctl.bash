# bash completion for llmctl. Load it with:  source <(llmctl completion bash)

_llmctl() {
    local -a words=() lines=()
    local rest=${COMP_LINE:0:COMP_POINT} current=0 word blanks index prefix

    # Readline splits words at ':' and '=' too, and model names have colons: put together what no blank separates.
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        blanks=${rest%%[![:blank:]]*}
        rest=${rest#"$blanks"}
        # The word under the cursor counts only up to the cursor.
        [[ $rest == "$word"* ]] || word=$rest
        rest=${rest#"$word"}
        if [[ ! $blanks && index -gt 0 && ($word == [:=]* || ${words[current]} == *[:=]) ]]; then
            words[current]+=$word
        else
            words[${#words[@]}]=$word
        fi
        current=$((${#words[@]} - 1))
    done

    local typed=${words[current]} quote=
    [[ $typed == [\"\']* ]] && quote=${typed:0:1}
    for index in "${!words[@]}"; do
        words[index]=${words[index]//[\"\'\\]/}
    done

    mapfile -t lines < <("$1" __complete "${words[@]:1}" 2>/dev/null)
    COMPREPLY=("${lines[@]%%$'\t'*}")

    # Readline replaces only what follows the last character at which it split; inside quotes it does not split.
    if [[ ! $quote ]]; then
        prefix=
        [[ $COMP_WORDBREAKS == *=* && $typed == *=* ]] && prefix=${typed%"${typed##*=}"}
        [[ $COMP_WORDBREAKS == *:* && $typed == *:* ]] && prefix=${typed%"${typed##*:}"}
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
}

complete -o default -F _llmctl llmctl
