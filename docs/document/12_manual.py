# Store conversation manually
from jaf_memory_core import ConversationMemory

messages = [
    Message(role="user", content="What's the weather like?"),
    Message(role="assistant", content="I'd need your location to check the weather.")
]

# Store new conversation
result = await provider.store_messages(
    conversation_id="weather-chat-1",
    messages=messages,
    metadata={"topic": "weather", "user_location": "unknown"}
)

# Append to existing conversation
new_messages = [
    Message(role="user", content="I'm in New York"),
    Message(role="assistant", content="It's currently 72°F and sunny in New York!")
]

result = await provider.append_messages(
    conversation_id="weather-chat-1",
    messages=new_messages
)

# Retrieve conversation
conversation = await provider.get_conversation("weather-chat-1")
if conversation:
    print(f"Found {len(conversation.messages)} messages")
    for message in conversation.messages:
        print(f"{message.role}: {message.content}")
