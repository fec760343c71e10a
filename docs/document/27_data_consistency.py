# Verify data integrity
async def verify_conversation_integrity(conversation_id: str):
    conversation = await provider.get_conversation(conversation_id)
    if not conversation:
        return False

    # Check message sequence
    for i, message in enumerate(conversation.messages):
        if not message.content or not message.role:
            print(f"Invalid message at index {i}")
            return False

    return True
