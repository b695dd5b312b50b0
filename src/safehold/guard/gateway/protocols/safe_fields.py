"""Fields beyond a protocol that a request may carry: data, read from the vendors' own pages.

`SAFE` names, for each wire value, what goes on to the model server; every string in it is scored
as a part of the prompt. Sources: the protocol files of vLLM, SGLang and llama.cpp's server, the
reference pages of OpenRouter, Groq and Anthropic, and what Claude Code and Codex send.
`OPENS_A_CHANNEL` names what would let unscored content reach a model, with what to do instead.
A field in neither is dropped and counted.
"""

_VLLM = (
    "chat_template_kwargs structured_outputs guided_json guided_regex guided_choice guided_grammar "
    "guided_decoding_backend guided_whitespace_pattern include_reasoning thinking_token_budget "
    "use_beam_search best_of bad_words allowed_token_ids prompt_logprobs echo "
    "include_stop_str_in_output truncate_prompt_tokens return_token_ids cache_salt documents "
    "min_tokens spaces_between_special_tokens request_id"
)
_SGLANG = "separate_reasoning stream_reasoning regex ebnf rid no_stop_trim stop_regex"
_LLAMA_CPP = (
    "grammar json_schema cache_prompt id_slot n_predict mirostat mirostat_tau mirostat_eta "
    "repeat_penalty repeat_last_n reasoning_format timings_per_token typical_p tfs_z "
    "dry_multiplier dry_base dry_allowed_length samplers n_probs"
)
_SAMPLING = (
    "top_k min_p typical_p repetition_penalty length_penalty presence_penalty frequency_penalty "
    "min_tokens ignore_eos stop stop_token_ids skip_special_tokens add_special_tokens seed "
    "logit_bias priority response_format top_n_sigma xtc_probability xtc_threshold dynatemp_range "
    "dynatemp_exponent dry_penalty_last_n min_keep n_keep random_seed safe_prompt"
)
"""How servers choose tokens, on whichever path: what a protocol has itself is not looked up."""
_ROUTERS = (
    "options keep_alive think reasoning provider usage transforms models route enable_thinking "
    "thinking thinking_budget include_usage prompt_cache_options top_a"
)

_SERVERS = f"{_SAMPLING} {_VLLM} {_SGLANG} {_LLAMA_CPP} {_ROUTERS}"

SAFE: dict[str, frozenset[str]] = {
    "ChatRequest": frozenset(_SERVERS.split()),
    "CompletionRequest": frozenset(_SERVERS.split()),
    "StreamOptions": frozenset({"continuous_usage_stats"}),
    "ChatMessage": frozenset(
        {"id", "cache_control", "prefix", "partial", "reasoning_details", "thinking_blocks"}
    ),
    "TextContent": frozenset({"cache_control"}),
    "MessagesRequest": frozenset(
        f"{_SAMPLING} context_management output_format betas chat_template_kwargs fallbacks".split()
    ),
    "CountRequest": frozenset({"context_management", "output_format", "betas"}),
    "ResponsesRequest": frozenset(
        f"{_SAMPLING} client_metadata context_management chat_template_kwargs".split()
    ),
}

_VENDOR_TOOL = "a tool that the vendor runs answers past the guard; leave it out of the request"
_TOKENS = "token ids are text that no scorer reads; send text"
_STORED = "text stored at the vendor is not read here; send it in the request"
_SOUND = "a sound is not scored; ask for text"

OPENS_A_CHANNEL: dict[str, str] = {
    "web_search_options": _VENDOR_TOOL,
    "mcp_servers": _VENDOR_TOOL,
    "plugins": _VENDOR_TOOL,
    "container": _VENDOR_TOOL,
    "prompt_token_ids": _TOKENS,
    "prompt_embeds": _TOKENS,
    "input_ids": _TOKENS,
    "input_embeds": _TOKENS,
    "kv_transfer_params": _TOKENS,
    "prompt": _STORED,
    "conversation": _STORED,
    "file_ids": _STORED,
    "audio": _SOUND,
}
