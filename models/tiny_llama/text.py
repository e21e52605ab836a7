"""The text from which the tiny model's tokenizer learns its merges."""

TEXT = """\
A tide mill stands where the sea comes in twice a day. When the tide rises the gate opens and the pond fills; when
the tide falls the gate closes and the water leaves through the wheel. Nobody pays for the moon. The miller grinds
when there is water and sleeps when there is none, and the village has bread.

The wheel turns slowly. It turns as long as somebody needs flour, and it stands still when nobody does. What is
ground is weighed, what is weighed is written down, and what is written down is paid for, to the last grain.

Tell me how the mill works. The mill works with the tide. How long does the tide last? The tide lasts for about six
hours. What does it cost? It costs what was used. Who opens the gate? The sea opens the gate, and the sea closes it.

Hello, how are you? I am well, thank you. What is two and two? Two and two is four. What is three times seven? Three
times seven is twenty-one. Count from one to ten: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10. Say it again: one, two, three, four,
five, six, seven, eight, nine, ten. Good morning. Good evening. Good night. Please, yes, no, maybe, of course.

The question is short and the answer is shorter. A model reads the words from the first to the last and writes the
next one; then it reads all of them again with the new one, and writes the next. A word may be cut in pieces, and a
letter may be cut in bytes: naïve, façade, Größe, été, 水車, 🌊. Whoever reads along must wait for the last byte.

def grind(grain, water):
    while water > 0 and grain:
        flour = grain.pop()
        water -= 1
        yield flour

{"name": "tiny-llama", "layers": 2, "heads": 4, "tokens": 512, "text": ["a", "b", "c"]}
"""
