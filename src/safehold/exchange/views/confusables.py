"""Characters that look like an ASCII letter and that NFKC leaves alone."""

# Each line: the plain letter, then what looks like it (Cyrillic, Greek, Armenian, Cherokee, small
# capitals, phonetic and other letters). Source: the letters of Unicode TR39's confusables that a
# reader takes for Latin, chosen by hand.
_LINES = """
a аαɑａᴀąȧ
b ЬƄᏏʙ
c сϲᴄⅽςɕ
d ԁɗᴅꓒ
e еєҽᴇεℯ
f ꞙẝꜰƒ
g ɡɢցƍ
h һհʜ
i іıɩιɪ
j јϳᴊ
k кκᴋƙ
l ⅼӏʟɭ
m мᴍⅿṃ
n пոᴎɴη
o оοօᴏσ
p рρᴘƿ
q ԛգզ
r гᴦʀ
s ѕꜱʂ
t тτᴛţ
u υսᴜʋц
v ѵνᴠⅴ
w ԝωᴡѡաш
x хχⅹҳ
y уγʏүყ
z ᴢʐż
A АΑᎪᗅ
B ВΒᏴᗷ
C СϹᏟ
D Ꭰᗞᗪ
E ЕΕᎬ
F Ϝᖴ
G ԌᏀ
H НΗᎻᕼ
I ІΙӀ
J ЈᎫᒍ
K КΚᏦ
L ᏞᒪⅬ
M МΜᎷᗰ
N Νꓠ
O ОΟՕ
P РΡᏢᑭ
Q Ԛ
R ᎡᖇƦ
S ЅᏚՏ
T ТΤᎢ
U ՍᑌԱ
V ѴᏙᐯ
W ԜᎳ
X ХΧ
Y ҮΥУ
Z ΖᏃ
"""

LOOKALIKES: dict[str, str] = {
    alike: line[0]
    for line in _LINES.split("\n")
    for alike in line[2:]
    if line and not alike.isascii()
}
# Letters in squares and circles that have no compatibility form.
ENCLOSED: dict[str, str] = {
    chr(first + n): chr(ord("A") + n) for first in (0x1F150, 0x1F170) for n in range(26)
}
