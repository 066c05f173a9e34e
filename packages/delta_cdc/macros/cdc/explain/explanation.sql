{#-- From what cdc_explain has read to its lines: sequence, batch, what the event is, what became of it. --#}
{% macro _cdc_explanation(o, events, arrivals, moves, values) -%}
    {%- set lines, known = [['sequence', 'batch', 'event', 'what became of it']], [] -%}
    {%- for row in events -%}
        {%- set e = dict(zip(['at', 'batch', 'kind', 'time', 'effective', 'overridden', 'visible', 'counts', 'from', 'to', 'next_at',
            'next_kind', 'shown_by', 'late', 'filled', 'values', 'hash'], row)) -%}
        {%- do known.append(e.at) -%}
        {%- if e.kind == 'truncate' -%}
            {%- do lines.append([e.at, '', 'truncate', 'closes the key']) -%}
        {%- else -%}
            {%- set told = [delta_cdc._cdc_fate(o, e)] -%}
            {%- if e.late == 'true' -%}{%- do told.append('late: a later event was applied in an earlier batch') -%}{%- endif -%}
            {%- if e.time != e.effective -%}{%- do told.append('clamped: its time ' ~ e.time ~ ' is before that of an earlier event, so it counts at ' ~ e.effective) -%}{%- endif -%}
            {%- for move in moves if move[1] == e.at and (move[0] == 'to') == (e.kind == 'delete') -%}
                {%- do told.append('key moved ' ~ move[0] ~ ' ' ~ (move[2] if values else 'another key')) -%}
            {%- endfor -%}
            {%- if e.filled -%}{%- do told.append('filled: ' ~ e.filled | replace(' ?', delta_cdc._cdc_no_source(moves, e))) -%}{%- endif -%}
            {%- if values and e.kind == 'change' -%}{%- do told.append('values: ' ~ e['values']) -%}{%- endif -%}
            {%- do lines.append([e.at, e.batch or '', e.kind, told | join('; ')]) -%}
            {%- do lines.extend(delta_cdc._cdc_copies(o, e, arrivals)) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for at, batch, kind, hash, is_new in arrivals if at not in known -%}
        {%- do lines.append([at, batch or '', kind, 'not applied: the next run reads it' if is_new == 'true'
            else 'not applied: the SELECT gave no such event when its batch was applied (a changed where clause, or a row that was changed in the source)']) -%}
    {%- endfor -%}
    {{ return(lines) }}
{%- endmacro %}


{#-- What one stored event shows, or why it is hidden. --#}
{% macro _cdc_fate(o, e) -%}
    {%- if e.overridden == 'true' -%}{{ return('hidden: a truncate has the same sequence and wins') }}{%- endif -%}
    {%- if e.counts != 'true' -%}{{ return('hidden: the next event has the same effective time, and only the last one shows') }}{%- endif -%}
    {%- if e.kind == 'delete' -%}{{ return('deletes the key') }}{%- endif -%}
    {%- set end = {'delete': 'a delete at ', 'truncate': 'a truncate at ', 'change': 'the event at '}.get(e.next_kind, '') ~ (e.next_at or '') -%}
    {%- if e.visible == 'true' and not o.scd2 -%}{{ return('the state of the key') }}{%- endif -%}
    {%- if e.visible == 'true' -%}
        {{ return('version from ' ~ e['from'] ~ (' to ' ~ e.to ~ ', closed by ' ~ end if e.to else ', open')) }}
    {%- endif -%}
    {%- if o.scd2 -%}{{ return('hidden: equal on the tracked columns to the next event; the version shows with ' ~ (e.shown_by or 'none')) }}{%- endif -%}
    {{ return('hidden: ended by ' ~ end) }}
{%- endmacro %}


{#-- Where a filled value is from that no earlier event of the key had. --#}
{% macro _cdc_no_source(moves, e) -%}
    {{ return(' from the key it moved from' if moves | selectattr(0, 'equalto', 'from') | list else ' with NULL, as no event before it sent one') }}
{%- endmacro %}


{#-- The other copies of a stored event: duplicates, and ties that it won. --#}
{% macro _cdc_copies(o, e, arrivals) -%}
    {%- set lines, own = [], namespace(is_seen=false) -%}
    {%- for at, batch, kind, hash, is_new in arrivals if at == e.at -%}
        {%- set is_same = kind == e.kind and hash == e.hash -%}
        {%- if is_same and batch == e.batch and not own.is_seen -%}
            {%- set own.is_seen = true -%}
        {%- elif is_same -%}
            {%- do lines.append([at, batch or '', kind, 'duplicate of the event of batch ' ~ e.batch]) -%}
        {%- else -%}
            {%- set by = 'on_tie=warn: ' ~ ('a delete wins' if kind != e.kind else 'the lower hash of the payload wins') if o.on_tie == 'warn'
                else 'on_tie=error: the model stops until one of the two is excluded' if is_new == 'true' else 'the stored one stays' -%}
            {%- do lines.append([at, batch or '', kind, 'tied with the event of batch ' ~ e.batch ~ ', which ' ~ ('stands' if is_new == 'true' else 'won') ~ ' (' ~ by ~ ')']) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(lines) }}
{%- endmacro %}


{#-- Rows of cells as lines, the columns under each other. --#}
{% macro _cdc_aligned(rows) -%}
    {%- set lines = [] -%}
    {%- for row in rows -%}
        {%- set cells = [] -%}
        {%- for place in range(3) -%}
            {%- do cells.append(row[place].ljust(rows | map(attribute=place) | map('length') | max)) -%}
        {%- endfor -%}
        {%- do lines.append(cells | join('  ') ~ '  ' ~ row[3]) -%}
    {%- endfor -%}
    {{ return(lines) }}
{%- endmacro %}
