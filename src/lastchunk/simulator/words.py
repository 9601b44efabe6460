"""Words that the simulated models say; written for this file, in five kinds of text."""

from __future__ import annotations


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ENGLISH = _split(
    "the river carries every small boat past quiet gardens and older bridges while people on "
    "both banks wave count their coins repair a lantern or argue about tomorrow weather nobody "
    "remembers who painted these doors green though several neighbours claim it was always so "
    "between market and harbour runs one narrow street with bakeries clockmakers translators "
    "unhurried cats electromagnetic curiosities counterintuitive signposts and misaddressed letters"
)

GERMAN = _split(
    "der alte Leuchtturm steht seit Jahren am Ende der schmalen Straße und zählt geduldig die "
    "Schiffe welche nachts vorüberziehen während oben im Zimmer jemand Briefe schreibt Äpfel "
    "schält und über Geschwindigkeitsbegrenzungen Wetterberichte sowie gebrauchte Fahrräder "
    "nachdenkt früher gehörte das Haus einer Uhrmacherin deren Töchter größere Pläne hatten"
)

CHINESE = _split(
    "河水 慢慢 流过 城市 旁边 的 小桥 早晨 有人 在 岸上 修理 灯笼 孩子们 数着 船 老人 说 "
    "明天 会 下雨 街道 很 安静 面包店 已经 开门 钟表匠 写信 给 远方 的 朋友 "
    "猫 睡在 窗台 上 龘 靐 邮差 送错 了 包裹"
)

EMOJI = _split(
    "🙂 🚀 👩‍👩‍👧 🧿 🏳️‍🌈 👍🏽 🇩🇪 🦑 ☕ ❤️ 🪐 🧑🏾‍🚀 🥨 🐈‍⬛ 🎻 🫖 ✨ 🌊 🛶 🕰️ 𓂀 🀄 hello wow yes"
)

CODE = (
    "def total(rows):",
    "    kept = [row for row in rows if row.amount > 0]",
    '    log.info("kept %d of %d", len(kept), len(rows))',
    "    return sum(row.amount for row in kept)",
    "",
    "for (let i = 0; i < boats.length; i++) {",
    "    if (boats[i].crew === null) { continue; }",
    "}",
    "SELECT name, COUNT(*) FROM boats GROUP BY name HAVING COUNT(*) > 1;",
    "assert lantern.oil_ml >= 0.25, f'low: {lantern.oil_ml!r}'",
    "x = (a << 3) ^ 0xFF",
    "# TODO: the harbour master wants UTC",
)
